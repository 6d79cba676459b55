"""Writes defaults.json: the defaults of peft.LoraConfig and transformers.TrainingArguments.

Made with peft 0.21.2 and transformers 5.23.0:  python make_defaults.py > defaults.json
Keys are all fields whose default is a JSON value; TrainingArguments as it is after its own
completion of missing values (output_dir).
"""

import dataclasses
import json

import peft
import transformers


def plain(value):
    if hasattr(value, "value"):  # an enumeration such as SchedulerType.LINEAR
        value = value.value
    try:
        json.dumps(value)
    except TypeError:
        return None, False
    return value, True


def defaults(config):
    kept = {}
    for field in dataclasses.fields(config):
        value, ok = plain(getattr(config, field.name))
        if ok and not field.name.startswith("_"):
            kept[field.name] = value
    return kept


print(
    json.dumps(
        {
            "versions": {"peft": peft.__version__, "transformers": transformers.__version__},
            "lora": defaults(peft.LoraConfig()),
            "training": defaults(transformers.TrainingArguments()),
        },
        indent=1,
        sort_keys=True,
    )
)
