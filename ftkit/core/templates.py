"""The built-in chat templates, as text: jinja with markers around what the assistant writes."""

from __future__ import annotations

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML: for tokenizers that have ``<|im_start|>`` and ``<|im_end|>``."""

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
"""Tokens that ChatML needs."""

PLAIN = (
    "{% for message in messages %}"
    "{{ '### ' + message['role'] | capitalize + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\n\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant\n' }}{% endif %}"
)
"""Headings in plain text; the assistant's turns end with the EOS token: for any tokenizer."""

TEMPLATES = {"chatml": CHATML, "plain": PLAIN}
"""The built-in templates by the name that recipes use."""
