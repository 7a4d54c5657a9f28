"""The names that other tools use for what a recipe says: TRL, axolotl, LLaMA-Factory, transformers.

Only for error messages: none of them is accepted.
"""

from __future__ import annotations

from typing import NamedTuple


class Alias(NamedTuple):
    """What stands here for another tool's key."""

    target: str = ""
    """The dotted path of our key; empty where there is none."""
    note: str = ""
    """How the two differ, or why there is none."""


_GLOBAL = "the prompts of a step over all ranks; train.micro_tokens bounds the memory"
_PACKED = "batches have no padding; this is how many tokens go through the model at once"
_BF16 = "write bfloat16 or float32"
_NF4 = "write nf4: 4 bits, with double quantization, under adapters"
_ALWAYS = "only answers are learnt, of every assistant turn; `ftkit data RECIPE` shows them"
_SETS = "a path, hf:NAME, or a list of {path, split, weight, columns}"
_RATIO = "a share of all steps below 1, a number of steps from 1 on"
_MEASURE = "such as eval.loss; the best checkpoint is kept and exported"
_CHECKED = "a share of the prompts, as in {fraction: 0.02}"
_METHOD = "as in method: {name: sft}"
_REFERENCE = "initial, none, or a folder or hub name"
_LOG = "a list of jsonl, tensorboard"

ALIASES: dict[str, Alias] = {
    # what is learnt, and how
    "stage": Alias("method.name", _METHOD),
    "rl": Alias("method.name", _METHOD),
    "trainer": Alias("method.name", _METHOD),
    "training_type": Alias("method.name", _METHOD),
    "loss_type": Alias("method.loss", "dpo: method.surrogate"),
    "dpo_beta": Alias("method.beta"),
    "pref_beta": Alias("method.beta"),
    "rl_beta": Alias("method.beta"),
    "kl_beta": Alias("method.beta"),
    "pref_loss": Alias("method.surrogate"),
    "simpo_gamma": Alias("method.margin"),
    "rpo_alpha": Alias("method.sft"),
    "pref_ftx": Alias("method.sft"),
    "dpo_label_smoothing": Alias("method.label_smoothing"),
    "ref_model": Alias("method.reference", _REFERENCE),
    "ref_model_path": Alias("method.reference", _REFERENCE),
    "reference_model": Alias("method.reference", _REFERENCE),
    "reference_free": Alias("method.reference", "write none"),
    "precompute_ref_log_probs": Alias("", "the reference's are always found once, and kept"),
    "center_rewards_coefficient": Alias("method.center"),
    "num_negatives": Alias("method.negatives"),
    "system_prompt": Alias("sample.system", "a list; dft samples its negatives under them"),
    # steps
    "learning_rate": Alias("train.lr"),
    "num_train_epochs": Alias("train.epochs"),
    "num_epochs": Alias("train.epochs"),
    "max_steps": Alias("train.steps"),
    "per_device_train_batch_size": Alias("train.prompts", _GLOBAL),
    "train_batch_size": Alias("train.prompts", _GLOBAL),
    "global_batch_size": Alias("train.prompts", _GLOBAL),
    "batch_size": Alias("train.prompts", _GLOBAL),
    "micro_batch_size": Alias("train.micro_tokens", "it counts tokens, and changes no result"),
    "gradient_accumulation_steps": Alias("train.prompts", f"it counts {_GLOBAL}"),
    "auto_find_batch_size": Alias("train.micro_tokens", "write what fits into memory"),
    # optimizer and schedule
    "optim": Alias("train.optimizer"),
    "lr_scheduler_type": Alias("train.schedule"),
    "lr_scheduler": Alias("train.schedule"),
    "scheduler": Alias("train.schedule"),
    "warmup_ratio": Alias("train.warmup", _RATIO),
    "warmup_steps": Alias("train.warmup", _RATIO),
    "cosine_min_lr_ratio": Alias("train.min_lr", "a share of lr"),
    "min_learning_rate": Alias("train.min_lr", "a share of lr"),
    "wd": Alias("train.weight_decay"),
    "gradient_clipping": Alias("train.max_grad_norm"),
    "max_norm": Alias("train.max_grad_norm"),
    "clip_grad": Alias("train.max_grad_norm"),
    "adam_beta1": Alias("train.betas", "both as a list: [0.9, 0.999]"),
    "adam_beta2": Alias("train.betas", "both as a list: [0.9, 0.999]"),
    "adam_epsilon": Alias("train.eps"),
    "random_seed": Alias("seed"),
    "data_seed": Alias("seed", "one seed fixes every random choice"),
    # rows
    "dataset": Alias("data.train", _SETS),
    "datasets": Alias("data.train", _SETS),
    "dataset_name": Alias("data.train", "hf:NAME for a data set of the hub"),
    "dataset_path": Alias("data.train", _SETS),
    "train_file": Alias("data.train", _SETS),
    "dataset_dir": Alias("data.train", _SETS),
    "eval_dataset": Alias("data.eval"),
    "test_datasets": Alias("data.eval"),
    "validation_file": Alias("data.eval"),
    "val_set_size": Alias("data.eval", _CHECKED),
    "test_size": Alias("data.eval", _CHECKED),
    "max_seq_length": Alias("data.max_length"),
    "max_seq_len": Alias("data.max_length"),
    "sequence_len": Alias("data.max_length"),
    "cutoff_len": Alias("data.max_length"),
    "model_max_length": Alias("data.max_length"),
    "truncation": Alias("data.overlong", "write error, drop or truncate"),
    "excess_length_strategy": Alias("data.overlong", "write error, drop or truncate"),
    "chat_template": Alias("data.template"),
    "chat_template_path": Alias("data.template"),
    "max_samples": Alias("data.train", "a list of {path, limit}"),
    "max_train_samples": Alias("data.train", "a list of {path, limit}"),
    "dataset_text_field": Alias("data.train", "a list of {path, columns: {text: NAME}}"),
    "packing": Alias("train.micro_tokens", _PACKED),
    "sample_packing": Alias("train.micro_tokens", _PACKED),
    "padding_free": Alias("train.micro_tokens", _PACKED),
    "pad_to_sequence_len": Alias("train.micro_tokens", _PACKED),
    "completion_only_loss": Alias("", _ALWAYS),
    "assistant_only_loss": Alias("", _ALWAYS),
    "train_on_inputs": Alias("", _ALWAYS),
    "train_on_prompt": Alias("", _ALWAYS),
    "dataset_num_proc": Alias("", "rows are tokenized once and kept"),
    "preprocessing_num_workers": Alias("", "rows are tokenized once and kept"),
    "overwrite_cache": Alias("", "what is kept follows the files' content, so it is never stale"),
    # model
    "model_name_or_path": Alias("model.path"),
    "model_name": Alias("model.path"),
    "base_model": Alias("model.path"),
    "pretrained_model_name_or_path": Alias("model.path"),
    "tokenizer_name": Alias("model.tokenizer"),
    "tokenizer_path": Alias("model.tokenizer"),
    "tokenizer_name_or_path": Alias("model.tokenizer"),
    "model_revision": Alias("model.revision"),
    "torch_dtype": Alias("model.dtype"),
    "bf16": Alias("model.dtype", _BF16),
    "fp16": Alias("model.dtype", _BF16),
    "tf32": Alias("train.matmul", "write high"),
    "attn_implementation": Alias("model.attention"),
    "flash_attn": Alias("model.attention"),
    "flash_attention": Alias("model.attention"),
    "gradient_checkpointing": Alias("model.checkpointing"),
    "finetuning_type": Alias("model.lora", "a map for adapters, null to train all weights"),
    "adapter": Alias("model.lora", "a map for adapters, null to train all weights"),
    "use_peft": Alias("model.lora", "a map for adapters, null to train all weights"),
    "peft_config": Alias("model.lora"),
    "load_in_4bit": Alias("model.quantize", _NF4),
    "load_in_8bit": Alias("model.quantize", _NF4),
    "quantization": Alias("model.quantize", _NF4),
    "quantization_bit": Alias("model.quantize", _NF4),
    "quantization_method": Alias("model.quantize", _NF4),
    "quantization_config": Alias("model.quantize", _NF4),
    "double_quantization": Alias("model.quantize", _NF4),
    "use_bnb_nested_quant": Alias("model.quantize", _NF4),
    "bnb_4bit_quant_type": Alias("model.quantize", _NF4),
    "bnb_4bit_use_double_quant": Alias("model.quantize", _NF4),
    "bnb_4bit_compute_dtype": Alias("model.dtype", _BF16),
    "bnb_4bit_quant_storage": Alias("", "4-bit weights are kept as bytes"),
    "lora_r": Alias("model.lora.r"),
    "lora_rank": Alias("model.lora.r"),
    "rank": Alias("model.lora.r"),
    "lora_alpha": Alias("model.lora.alpha"),
    "lora_target": Alias("model.lora.targets"),
    "lora_target_modules": Alias("model.lora.targets"),
    "lora_target_linear": Alias("model.lora.targets", "write all-linear"),
    "target_modules": Alias("model.lora.targets"),
    "use_rslora": Alias("model.lora.rslora"),
    "peft_use_rslora": Alias("model.lora.rslora"),
    "lora_dropout": Alias("", "adapters have no dropout, so that log-probabilities are exact"),
    # answers
    "max_new_tokens": Alias("sample.max_tokens"),
    "max_completion_length": Alias("sample.max_tokens"),
    "num_generations": Alias("sample.answers"),
    "generation_temperature": Alias("sample.temperature"),
    "reward_funcs": Alias("verify", "a map, as in {name: math}, or a list of them with weights"),
    "reward_weights": Alias("verify.weight", "each verifier has its own"),
    "reward_model_path": Alias("verify.path", "as in verify: {name: model, path: ...}"),
    "max_prompt_length": Alias("data.max_length", "with data.overlong: drop"),
    "use_vllm": Alias("sample.engine", "write engine: vllm"),
    "vllm_mode": Alias("sample.vllm", "without server it runs in the trainer's process"),
    "vllm_server_base_url": Alias("sample.vllm.server"),
    "vllm_server_host": Alias("sample.vllm.server", "as in http://HOST:8000"),
    "vllm_server_timeout": Alias("sample.vllm.wait"),
    "vllm_gpu_memory_utilization": Alias("sample.vllm.memory"),
    "gpu_memory_utilization": Alias("sample.vllm.memory"),
    "vllm_enable_sleep_mode": Alias("sample.vllm.sleep"),
    "rollout_batch_size": Alias(
        "train.prompts", "prompts of a step; train.updates of them make a rollout"
    ),
    "num_iterations": Alias("train.rollout_epochs"),
    "num_ppo_epochs": Alias("train.rollout_epochs"),
    "ppo_epochs": Alias("train.rollout_epochs"),
    "num_mini_batches": Alias("train.updates"),
    "steps_per_generation": Alias("train.updates"),
    "epsilon": Alias("method.clip_low", "and method.clip_high; ppo: method.clip"),
    "epsilon_high": Alias("method.clip_high"),
    "cliprange": Alias("method.clip", "grpo: method.clip_low and method.clip_high"),
    "cliprange_value": Alias("method.clip_value"),
    "vf_coef": Alias("method.value_coef"),
    "kl_coef": Alias("method.beta"),
    "init_kl_coef": Alias("method.beta"),
    "entropy_coeff": Alias("method.entropy"),
    "scale_rewards": Alias("method.advantage", "none, sigma or sample_sigma"),
    "importance_sampling_level": Alias("method.ratio"),
    "mask_truncated_completions": Alias("method.truncated", "keep or mask"),
    # the run
    "output_dir": Alias("run"),
    "run_name": Alias("run", "the folder is the name"),
    "resume_from_checkpoint": Alias("", "write `ftkit train RECIPE --resume`"),
    "overwrite_output_dir": Alias(
        "", "a run is never overwritten; remove its folder, or name another"
    ),
    "do_train": Alias("", "the command says what is done"),
    "eval_strategy": Alias("eval.every", "a number of steps"),
    "evaluation_strategy": Alias("eval.every", "a number of steps"),
    "eval_steps": Alias("eval.every"),
    "evals_per_epoch": Alias("eval.every", "a number of steps"),
    "save_strategy": Alias("checkpoint.every", "a number of steps"),
    "save_steps": Alias("checkpoint.every"),
    "saves_per_epoch": Alias("checkpoint.every", "a number of steps"),
    "save_total_limit": Alias("checkpoint.keep"),
    "metric_for_best_model": Alias("checkpoint.best", _MEASURE),
    "load_best_model_at_end": Alias("checkpoint.best", _MEASURE),
    "early_stopping_patience": Alias(
        "train.until", "stops at a target, as in {eval.exact_match: 0.5}"
    ),
    "logging_steps": Alias("", "metrics.jsonl has a line for every step"),
    "logging_dir": Alias("run"),
    "report_to": Alias("log", _LOG),
    "use_tensorboard": Alias("log", _LOG),
    "ddp_timeout": Alias("", "rows are prepared before ranks start"),
}
"""Another tool's key, lower case with underscores: ours."""
