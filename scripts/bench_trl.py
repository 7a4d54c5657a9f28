"""TRL's trainers as the benchmarks run them: watched, in the order of the rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from scripts.bench import BIG, LR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripts.bench import Watch


def watched(trainer: type[Any], watch: Watch, trained: Callable[[Any], int]) -> type[Any]:
    """Return a trainer that reads its rows in order and says what each step did.

    Args:
        trainer: TRL's.
        watch: who is told.
        trained: from a step's inputs to the number of tokens learnt.
    """
    from torch.utils.data import SequentialSampler

    class Watched(trainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            watch.turn()  # the step before has been taken whole by now
            count = trained(inputs)
            loss = super().training_step(model, inputs, *args, **kwargs)
            watch.differentiated(float(loss), count, self.accelerator.unwrap_model(model))
            return loss

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    return Watched


def watched_rollouts(trainer: type[Any], watch: Watch, given: Sequence[Sequence[int]]) -> type[Any]:
    """Return a trainer that says what each step did, and of that, what sampling and rewards took.

    Args:
        trainer: TRL's, which samples what it learns from; its prompts are token ids.
        watch: who is told.
        given: the answers to the prompts of the first step, instead of sampled ones.
    """
    first: list[Sequence[Sequence[int]]] = [given]

    class Watched(trainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            parts = self.args.gradient_accumulation_steps
            part = self._step % parts
            if part == 0:
                watch.turn()  # the step before has been taken whole by now
                self.summed = 0.0
            loss = super().training_step(model, inputs, *args, **kwargs)
            self.summed += float(loss)  # of means, already divided by the number of parts
            if part == parts - 1:
                bare = self.accelerator.unwrap_model(model)
                watch.differentiated(self.summed, self.learnt, bare)
            return loss

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            started = time.process_time()
            out = super()._generate_and_score_completions(inputs)
            watch.note(rollout=time.process_time() - started)
            self.learnt = int(out["completion_mask"].sum())
            return out

        def _tokenize_prompts(self, prompts: Any) -> Any:
            return prompts, None, {}

        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            if first:
                return [list(answer) for answer in first.pop()], None
            return super()._generate_single_turn(*args, **kwargs)

    return Watched


def settings(rows: int) -> dict[str, Any]:
    """Return what all of TRL's configurations share: no recomputation, no 16-bit, no files."""
    return {
        "output_dir": "out",
        "per_device_train_batch_size": rows,
        "num_train_epochs": 1,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,  # no row is longer than the model reads
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
    }


def tokenizer() -> Any:
    """Return a tokenizer with one word for each id."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"<{i}>": i for i in range(BIG["vocab_size"])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<0>")),
        eos_token="<1>",
        pad_token="<2>",
    )
