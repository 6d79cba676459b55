/* base/settings_table.h -- every setting, once. Included several times, by base/settings.h and
 * settings.c, with these macros defined (this file undefines them):
 *
 *   LRD_SECTION(section, help)
 *   LRD_SETTING(section, name, kind, default, limit, help)
 *   LRD_SECTION_END(section)
 *
 * kind     one of the lrd_setting_<kind>_t of base/settings.h
 * default  as one would write it in YAML; a text stands for itself, line breaks and all
 * limit    what values are allowed: ANY; NOT_EMPTY (a text or list has at least one element);
 *          AT_LEAST(a); BETWEEN(a, b), both included; ABOVE(a); FROM_BELOW(a, b), b excluded;
 *          ONE_OF(list of choices). For lists and maps it holds for each number.
 * help     one or two sentences of Markdown: meaning, unit, what other keys it depends on
 */
/* clang-format off */
LRD_SECTION(model, "The frozen base model.")
LRD_SETTING(model, name_or_path, TEXT, "null", NOT_EMPTY,
    "Folder of the base model (`config.json`, `*.safetensors`, `tokenizer.json`), or, where there is "
    "no such folder, its name on the Hub, `ORG/NAME`: it is downloaded, or found where transformers "
    "keeps it. Needed.")
LRD_SETTING(model, revision, TEXT, "main", NOT_EMPTY,
    "Branch, tag or commit of the model on the Hub. Put a commit that looks like a number in "
    "quotes.")
LRD_SETTING(model, dtype, CHOICE, "auto", ONE_OF(LRD_MODEL_DTYPE_LIST),
    "How the frozen weights are stored and multiplied; `auto` is the file's own type. Adapter, "
    "gradients and optimizer are float32 in any case; float16 uses dynamic loss scaling.")
LRD_SECTION_END(model)

LRD_SECTION(lora, "The adapter, in PEFT's terms (`LoraConfig`).")
LRD_SETTING(lora, r, INTEGER, "8", BETWEEN(1, 65536),
    "Rank: A has r rows, B has r columns.")
LRD_SETTING(lora, lora_alpha, REAL, "8", ABOVE(0),
    "Scaling: the adapter's output is multiplied by lora_alpha / r (see `use_rslora`).")
LRD_SETTING(lora, lora_dropout, REAL, "0.0", FROM_BELOW(0, 1),
    "Probability with which an element of A's input is dropped during training.")
LRD_SETTING(lora, target_modules, TEXTS, "null", NOT_EMPTY,
    "The linear layers that get an adapter: a list of names, each equal to a module's path or to "
    "its end after a dot; `all-linear` for all but the output head; any other single text is a "
    "regular expression that must match the whole path. `null`: PEFT's choice for the model, for "
    "BLOOM `[query_key_value]`.")
LRD_SETTING(lora, exclude_modules, TEXTS, "null", ANY,
    "Linear layers to leave out of `target_modules`: a list of names, or one regular expression.")
LRD_SETTING(lora, bias, CHOICE, "none", ONE_OF(LRD_LORA_BIAS_LIST),
    "Biases stay frozen; PEFT's `all` and `lora_only` are not supported.")
LRD_SETTING(lora, use_rslora, BOOLEAN, "false", ANY,
    "Scale by lora_alpha / sqrt(r) instead of lora_alpha / r.")
LRD_SETTING(lora, rank_pattern, INTEGER_MAP, "{}", BETWEEN(1, 65536),
    "Ranks that differ from `r`: regular expression for the end of a module's path -> rank. The "
    "first that matches wins.")
LRD_SETTING(lora, alpha_pattern, REAL_MAP, "{}", ABOVE(0),
    "The same for `lora_alpha`.")
LRD_SETTING(lora, layers_to_transform, INTEGERS, "null", BETWEEN(0, 65535),
    "Numbers of the blocks that get adapters, from 0. `null`: all. Not together with a "
    "`target_modules` that is a single text.")
LRD_SETTING(lora, init_lora_weights, CHOICE, "true", ONE_OF(LRD_LORA_INIT_LIST),
    "`true`: A uniform within 1/sqrt(inputs), B zero. `gaussian`: A normal with deviation 1/r, B "
    "zero. `false`: B is random too, so that the adapter changes the model from the start.")
LRD_SETTING(lora, seed, INTEGER, "42", BETWEEN(0, 4294967295),
    "A and B are drawn as PEFT draws them right after `torch.manual_seed(seed)`.")
LRD_SETTING(lora, adapter_name_or_path, TEXT, "null", NOT_EMPTY,
    "Start from this adapter, a folder or a name on the Hub (`ORG/NAME`, `ORG/NAME@REVISION`), "
    "instead of a fresh one.")
LRD_SECTION_END(lora)

LRD_SECTION(data, "What the model learns from.")
LRD_SETTING(data, format, CHOICE, "squad", ONE_OF(LRD_FORMAT_LIST),
    "`squad`: a SQuAD v2.0 file, or records with its questions as the Hub's `squad_v2` has them. "
    "`jsonl`: records whose members `prompt_template` names. `tokenized`: records `{\"input_ids\": "
    "[...], \"labels\": [...]}`; without `labels` they equal `input_ids`; -100 is not counted. "
    "Records stand in JSON lines, in a JSON list or in a Parquet file; its first bytes tell.")
LRD_SETTING(data, train_file, TEXT, "null", NOT_EMPTY,
    "The training data: a file, or, where there is no such file, a data set of the Hub, `ORG/NAME`, "
    "or `ORG/NAME@REVISION#CONFIGURATION/SPLIT`, in which all but the name may be left out: it is "
    "downloaded, or found in huggingface_hub's cache. Needed for training.")
LRD_SETTING(data, eval_file, TEXT, "null", NOT_EMPTY,
    "The evaluation data, in the same format; of a data set of the Hub the split `validation`, "
    "unless another is named.")
LRD_SETTING(data, validation_split, REAL, "0.0", FROM_BELOW(0, 1),
    "Instead of `eval_file`: the fraction of `train_file` that is kept back for evaluation, by "
    "article (squad) or by record, drawn with `training.data_seed`.")
LRD_SETTING(data, prompt_template, TEXT,
    "### CONTEXT\n{context}\n\n### QUESTION\n{question}\n\n### ANSWER\n{answer}</s>", NOT_EMPTY,
    "How a record becomes text. `{name}` stands for a field (squad: context, question, answer, id, "
    "title), `{{` and `}}` for braces. Generation uses the template up to its last field. Needed "
    "for `jsonl`.")
LRD_SETTING(data, no_answer_text, TEXT, "Cannot Find Answer", ANY,
    "The answer to a SQuAD question that has none.")
LRD_SETTING(data, loss_on, CHOICE, "all", ONE_OF(LRD_LOSS_ON_LIST),
    "`all`: every token counts in the loss. `answer`: only tokens that begin at or after the first "
    "byte of the template's last field.")
LRD_SETTING(data, max_length, INTEGER, "2048", BETWEEN(2, 1048576),
    "The longest record, in tokens.")
LRD_SETTING(data, on_too_long, CHOICE, "error", ONE_OF(LRD_TOO_LONG_LIST),
    "What happens to a longer one: `error` names it and stops, `drop` leaves it out, "
    "`truncate_context` (squad) cuts the end of its context.")
LRD_SETTING(data, cache_dir, TEXT, "null", NOT_EMPTY,
    "Folder for tokenized data sets, reused by later runs. `null`: below `training.output_dir`.")
LRD_SECTION_END(data)

LRD_SECTION(training, "The run, in the Trainer's terms (`TrainingArguments`).")
LRD_SETTING(training, output_dir, TEXT, "trainer_output", NOT_EMPTY,
    "Folder for the adapter, its checkpoints and the logs.")
LRD_SETTING(training, overwrite_output_dir, BOOLEAN, "false", ANY,
    "Allow a new start in a folder that holds checkpoints. What the earlier run left there is replaced.")
LRD_SETTING(training, per_device_train_batch_size, INTEGER, "8", BETWEEN(1, 1048576),
    "Records in a micro-batch, packed without padding.")
LRD_SETTING(training, max_tokens_per_micro_batch, NULL_INTEGER, "null", BETWEEN(1, 2147483647),
    "Make micro-batches by tokens instead: as many records of the update as fit. The size of an "
    "update does not change.")
LRD_SETTING(training, gradient_accumulation_steps, INTEGER, "1", BETWEEN(1, 1048576),
    "Micro-batches of each data rank in an update.")
LRD_SETTING(training, global_batch_size, NULL_INTEGER, "null", BETWEEN(1, 2147483647),
    "Records in an update on any number of ranks, instead of `gradient_accumulation_steps`. "
    "`null`: per_device_train_batch_size x gradient_accumulation_steps x data ranks.")
LRD_SETTING(training, per_device_eval_batch_size, INTEGER, "8", BETWEEN(1, 1048576),
    "Records in a batch of evaluation; `eval_loss` is the mean over records of their batch's loss.")
LRD_SETTING(training, num_train_epochs, REAL, "3.0", ABOVE(0),
    "Passes over the training data; may be a fraction.")
LRD_SETTING(training, max_steps, INTEGER, "-1", BETWEEN(-1, 2147483647),
    "Updates to make. Above 0 it wins over `num_train_epochs`.")
LRD_SETTING(training, learning_rate, REAL, "5e-5", AT_LEAST(0),
    "AdamW's step size after warm-up.")
LRD_SETTING(training, lr_scheduler_type, CHOICE, "linear", ONE_OF(LRD_SCHEDULE_LIST),
    "How the learning rate falls after warm-up: to 0 along a line or a half cosine, or not at all. "
    "`constant` has no warm-up.")
LRD_SETTING(training, warmup_steps, REAL, "0", AT_LEAST(0),
    "Updates over which the learning rate rises from 0; below 1: as a fraction of all updates, "
    "rounded up.")
LRD_SETTING(training, warmup_ratio, REAL, "0.0", BETWEEN(0, 1),
    "The same as a fraction, as transformers 4 spells it; `warmup_steps` above 0 wins.")
LRD_SETTING(training, weight_decay, REAL, "0.0", AT_LEAST(0),
    "AdamW's decoupled weight decay of A and B.")
LRD_SETTING(training, adam_beta1, REAL, "0.9", FROM_BELOW(0, 1),
    "AdamW's decay of the mean gradient.")
LRD_SETTING(training, adam_beta2, REAL, "0.999", FROM_BELOW(0, 1),
    "AdamW's decay of the mean squared gradient.")
LRD_SETTING(training, adam_epsilon, REAL, "1e-8", ABOVE(0),
    "Added to the root of the mean squared gradient.")
LRD_SETTING(training, max_grad_norm, REAL, "1.0", AT_LEAST(0),
    "Gradients with a larger norm, over all adapters together, are scaled down to it. 0: never.")
LRD_SETTING(training, max_nonfinite_steps, INTEGER, "25", BETWEEN(1, 2147483647),
    "The run fails after this many updates in a row that were skipped because loss or gradient was "
    "not finite; the search for the float16 loss scale does not count.")
LRD_SETTING(training, gradient_checkpointing, CHOICE, "none", ONE_OF(LRD_CHECKPOINTING_LIST),
    "What the backward pass computes again instead of keeping it: nothing, the attention, whole "
    "blocks; `auto`: as little as fits in memory.")
LRD_SETTING(training, tf32, BOOLEAN, "false", ANY,
    "On a GPU, float32 products round their operands to TF32, ten bits behind the leading one: several "
    "times as fast. For models in float32 alone; an error on the CPU, as in transformers.")
LRD_SETTING(training, logging_steps, INTEGER, "1", BETWEEN(1, 2147483647),
    "Log loss, gradient norm and learning rate every so many updates. (TrainingArguments has 500.)")
LRD_SETTING(training, eval_steps, NULL_INTEGER, "null", BETWEEN(1, 2147483647),
    "Evaluate every so many updates. `null`: do not evaluate during training.")
LRD_SETTING(training, predict_with_generate, BOOLEAN, "false", ANY,
    "Evaluations also answer the questions (squad) and report `eval_exact` and `eval_f1`, as "
    "`Seq2SeqTrainingArguments` has it. `metric_for_best_model: exact` or `f1` implies it.")
LRD_SETTING(training, generation_max_new_tokens, INTEGER, "64", BETWEEN(1, 65536),
    "The longest answer of such an evaluation.")
LRD_SETTING(training, save_steps, INTEGER, "500", BETWEEN(1, 2147483647),
    "Write a checkpoint every so many updates, and after the last one.")
LRD_SETTING(training, save_total_limit, NULL_INTEGER, "null", BETWEEN(1, 2147483647),
    "Checkpoints to keep; older ones are removed, the best one is not. `null`: all.")
LRD_SETTING(training, load_best_model_at_end, BOOLEAN, "false", ANY,
    "End with the adapter of the best evaluation instead of the last. Needs `eval_steps`, and "
    "`save_steps` a multiple of it.")
LRD_SETTING(training, metric_for_best_model, CHOICE, "loss", ONE_OF(LRD_METRIC_LIST),
    "What is best: the smallest `loss`, or the highest `exact` or `f1` of generated answers "
    "(squad).")
LRD_SETTING(training, resume_from_checkpoint, RESUME, "null", ANY,
    "`null`: go on where an interrupted run of the same settings left off in `output_dir`, else "
    "start. `true`: go on from the newest complete checkpoint there. `false`: start. A folder: go "
    "on from that checkpoint.")
LRD_SETTING(training, seed, INTEGER, "42", BETWEEN(0, 4294967295),
    "Seed of dropout, and of the data's order unless `data_seed` says otherwise.")
LRD_SETTING(training, data_seed, NULL_INTEGER, "null", BETWEEN(0, 4294967295),
    "Seed of the data's order and of `validation_split`. `null`: `seed`.")
LRD_SETTING(training, push_to_hub, BOOLEAN, "false", ANY,
    "Publish the adapter on the Hub when training ends. Needs a token that may write (`HF_TOKEN`, or "
    "`hf auth login`).")
LRD_SETTING(training, hub_model_id, TEXT, "null", NOT_EMPTY,
    "Repository to publish to, `name/repository`, or `repository` in the user's own account. "
    "`null`: named after `output_dir`. Made before the run, if it is not there.")
LRD_SETTING(training, hub_private_repo, BOOLEAN, "false", ANY,
    "Make that repository a private one, if it is made.")
LRD_SECTION_END(training)

LRD_SECTION(parallel,
    "How the work is spread over ranks and devices. The number of ranks is data x pipeline.")
LRD_SETTING(parallel, data, AUTO_INTEGER, "auto", BETWEEN(1, 1048576),
    "Replicas of the model, each with its share of every batch.")
LRD_SETTING(parallel, pipeline, AUTO_INTEGER, "auto", BETWEEN(1, 65536),
    "Ranks that share one replica, each with some of its layers.")
LRD_SETTING(parallel, pipeline_chunks, AUTO_INTEGER, "auto", BETWEEN(1, 65536),
    "Separate runs of layers on each rank of a pipeline. `auto`: more than one where that shortens "
    "an update by 5 % or more (docs/pipeline.md).")
LRD_SETTING(parallel, device_map, DEVICE_MAP, "auto", ANY,
    "Where layers go. `auto`: by measured memory and cost. `balanced`, `sequential`: as accelerate "
    "does. Or a map of module names to the number of a device, `cpu` or `disk`: blocks there travel to "
    "the device of the block before them.")
LRD_SETTING(parallel, max_memory, MAX_MEMORY, "null", ANY,
    "The most memory to use: a list of sizes such as `24GiB`, one for each device, or a map of "
    "device numbers and `cpu` (weights in host memory, of each rank that offloads) to sizes; `disk` "
    "has no limit. `null`: what is free.")
LRD_SETTING(parallel, offload_folder, TEXT, "null", NOT_EMPTY,
    "Folder for a copy of the weights in the compute dtype, for blocks that fit neither device nor host "
    "memory where the model's own files have another dtype.")
LRD_SETTING(parallel, reduction, CHOICE, "reproducible", ONE_OF(LRD_REDUCTION_LIST),
    "`reproducible`: gradients are summed in one fixed order, with the same bits on any number of "
    "ranks. `fast`: one plain all-reduce.")
LRD_SETTING(parallel, shares, CHOICE, "auto", ONE_OF(LRD_SHARES_LIST),
    "How replicas share the micro-batches of an update. `auto`: by their speed, as the run measures it, with the same "
    "bits; evenly where `reduction` is `fast`. `even`: evenly, which takes less memory for gradients "
    "(docs/pipeline.md).")
LRD_SETTING(parallel, transport, CHOICE, "auto", ONE_OF(LRD_TRANSPORT_LIST),
    "How GPUs of several ranks exchange gradients and activations. `nccl`: directly. `mpi`: through host "
    "memory. `auto`: `nccl` where it is and each rank has a GPU of its own. The bits are the same, unless "
    "`reduction` is `fast`.")
LRD_SETTING(parallel, tuning_file, TEXT, "null", NOT_EMPTY,
    "Choices of algorithms for this machine, written by `lora-dist tune`.")
LRD_SETTING(parallel, ranks_per_device, INTEGER, "1", BETWEEN(1, 1024),
    "How many ranks may share a GPU. Each rank takes the GPU of its number on its host, modulo those "
    "it sees; more ranks on one than this are an error.")
LRD_SETTING(parallel, timeout_seconds, REAL, "60", BETWEEN(1, 86400),
    "A rank that says nothing, or makes no progress while others wait for it, is gone after so long, "
    "and the run with it. Slow files count as progress as long as pages come in.")
LRD_SECTION_END(parallel)
/* clang-format on */
#undef LRD_SECTION
#undef LRD_SETTING
#undef LRD_SECTION_END
