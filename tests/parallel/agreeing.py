"""What a rank does before it trains: its own recipe and rows compared with the others'."""

from __future__ import annotations

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe
from ftkit.run import read_data
from ftkit.tasks import agreement
from ftkit.tasks.agreement import check_same, check_shared


def agreed(world, paths, versions=None):
    """Compare; return what is refused, and whether it is so of all ranks, or None.

    Args:
        world: the ranks.
        paths: the recipe of each.
        versions: those of the second rank, if they are others.
    """
    loaded = load_recipe(str(paths[world.rank]))
    real = agreement.versions
    if versions and world.rank == 1:
        agreement.versions = lambda: versions
    try:
        check_same(world, loaded, read_data(loaded.recipe))
    except UserError as error:
        return str(error), error.shared
    finally:
        agreement.versions = real
    return None


def seen(world, folders):
    """Look at one folder for each; return what is refused, if anything is."""
    agreement.SEEN = 0.3
    try:
        check_shared(world, folders[world.rank])
    except UserError as error:
        return str(error)
    return None
