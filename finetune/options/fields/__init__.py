"""The options of a training run, a dataclass for each group; `finetune.config` joins them."""
