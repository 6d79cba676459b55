#include "bench/op_cases.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* False: the usage is wrong. */
static bool read_options(op_shapes_t *s, int argc, char **argv)
{
    static const struct option options[] = {
        {"backend", required_argument, NULL, 'b'}, {"dtype", required_argument, NULL, 'd'},
        {"hidden", required_argument, NULL, 'c'},  {"heads", required_argument, NULL, 'h'},
        {"vocab", required_argument, NULL, 'v'},   {"tokens", required_argument, NULL, 't'},
        {"length", required_argument, NULL, 'l'},  {"context", required_argument, NULL, 'p'},
        {"rank", required_argument, NULL, 'r'},    {"repeat", required_argument, NULL, 'n'},
        {"threads", required_argument, NULL, 'j'}, {0}};
    static const char letters[] = "chvtlprnj";
    int *const numbers[] = {&s->hidden,  &s->heads, &s->vocab,  &s->tokens,   &s->length,
                            &s->context, &s->rank,  &s->repeat, &s->n_threads};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        const char *at = strchr(letters, c);
        if (c == 'b')
            s->backend = optarg;
        else if (c == 'd')
            s->dtype_name = optarg;
        else if (at != NULL)
            *numbers[at - letters] = (int)strtol(optarg, NULL, 10);
        else
            return false;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (*numbers[i] < 1)
            return false;
    }
    const int dtype = lrd_dtype_parse(s->dtype_name);
    s->dtype = (lrd_dtype_t)dtype;
    return optind == argc && (dtype == LRD_F32 || dtype == LRD_BF16 || dtype == LRD_F16) &&
           s->hidden % s->heads == 0 && s->tokens % s->length == 0;
}

bool op_shapes_read(op_shapes_t *s, int argc, char **argv)
{
    *s = (op_shapes_t){.backend = "auto",
                       .dtype_name = "bfloat16",
                       .hidden = 2560,
                       .heads = 32,
                       .vocab = 250880,
                       .tokens = 8192,
                       .length = 512,
                       .context = 2048,
                       .rank = 8,
                       .repeat = 20,
                       .n_threads = 1};
    if (read_options(s, argc, argv))
        return true;
    fprintf(
        stderr,
        "usage: %s [--backend NAME] [--dtype D] [--hidden C] [--heads H] [--vocab V] [--tokens T] "
        "[--length L] [--context P] [--rank R] [--repeat N] [--threads N]; H divides C, L divides "
        "T\n",
        argv[0]);
    return false;
}
