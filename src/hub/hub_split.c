#include "hub/hub_split.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 600 };

/* The splits that are found by words, and the words. */
enum { N_SPLITS = 3, MAX_WORDS = 4 };
static const struct {
    const char *split, *word[MAX_WORDS];
} known[N_SPLITS] = {{"train", {"train", "training"}},
                     {"validation", {"validation", "valid", "dev", "val"}},
                     {"test", {"test", "testing", "eval", "evaluation"}}};

/* Patterns around a word, in a folder's name and in a file's. */
enum { MAX_AROUND = 4 };
static const char *const in_folder[MAX_AROUND] = {
    "**/%s/**", "**/%s[-._ 0-9]*/**", "**/*[-._ 0-9]%s/**", "**/*[-._ 0-9]%s[-._ 0-9]*/**"};
static const char *const in_file[MAX_AROUND] = {"**/%s[-._ 0-9]*", "**/*[-._ 0-9]%s[-._ 0-9]*"};

#define DIGITS "[0-9][0-9][0-9][0-9][0-9]"
static const char sharded[] = "-" DIGITS "-of-" DIGITS "*.*";

/* Whether a character is of the set that begins behind "["; *end_out: behind the "]". A "[" without an end is itself. */
static bool in_set(const char *set, const char *end, char c, const char **end_out)
{
    const char *at = set;
    const bool negated = at < end && *at == '!';
    at += negated;
    const char *close = at < end ? memchr(at + 1, ']', (size_t)(end - at - 1)) : NULL;
    if (close == NULL) {
        *end_out = set;
        return c == '[';
    }
    bool found = false;
    for (; at < close; at++) {
        if (close - at > 2 && at[1] == '-') {
            found |= (unsigned char)at[0] <= (unsigned char)c &&
                     (unsigned char)c <= (unsigned char)at[2];
            at += 2;
        } else {
            found |= *at == c;
        }
    }
    *end_out = close + 1;
    return found != negated;
}

/* Of one part of a path. Where a "*" took too little, it takes one more. */
static bool part_matches(const char *p, const char *p_end, const char *t, const char *t_end)
{
    const char *star = NULL, *star_t = NULL;
    while (t < t_end) {
        const char *next = p + 1;
        if (p < p_end && *p == '*') {
            star = p++;
            star_t = t;
            continue;
        }
        if (p < p_end && (*p == '?' || (*p == '[' ? in_set(p + 1, p_end, *t, &next) : *p == *t))) {
            p = next;
            t++;
        } else if (star != NULL) {
            p = star + 1;
            t = ++star_t;
        } else {
            return false;
        }
    }
    while (p < p_end && *p == '*')
        p++;
    return p == p_end;
}

static const char *end_of_part(const char *at)
{
    return at + strcspn(at, "/");
}

static const char *next_part(const char *end)
{
    return *end == '/' ? end + 1 : NULL;
}

bool lrd_hub_pattern_matches(const char *pattern, const char *path)
{
    const char *p = pattern, *t = path, *star = NULL, *star_t = NULL;
    while (t != NULL) {
        const char *p_end = p != NULL ? end_of_part(p) : NULL, *t_end = end_of_part(t);
        if (p != NULL && p_end - p == 2 && memcmp(p, "**", 2) == 0) {
            star = p = next_part(p_end);
            star_t = t;
            if (p == NULL)
                return true;
        } else if (p != NULL && part_matches(p, p_end, t, t_end)) {
            p = next_part(p_end);
            t = next_part(t_end);
        } else if (star != NULL) {
            p = star;
            t = star_t = next_part(end_of_part(star_t));
        } else {
            return false;
        }
    }
    return p == NULL;
}

static bool has_magic(const char *pattern)
{
    return strpbrk(pattern, "*?[") != NULL;
}

/* Parts of a path that begin so; those of folders only, or the file's too. */
static int count_parts(const char *path, const char *begin, bool folders_only)
{
    int n = 0;
    for (const char *at = path; at != NULL; at = next_part(end_of_part(at)))
        n += strncmp(at, begin, strlen(begin)) == 0 && (!folders_only || *end_of_part(at) == '/');
    return n;
}

/* Whether a path is meant by the pattern: what is hidden is only where the pattern says so. */
static bool is_meant(const char *pattern, const char *path)
{
    static const char *const ignored[] = {"README.md",         "config.json",
                                          "dataset_info.json", "dataset_infos.json",
                                          "dummy_data.zip",    "dataset_dict.json"};
    if (!lrd_hub_pattern_matches(pattern, path) ||
        count_parts(pattern, ".", false) != count_parts(path, ".", false) ||
        count_parts(pattern, "__", true) != count_parts(path, "__", true))
        return false;
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++) {
        if (strcmp(lrd_path_base(path), ignored[i]) == 0 &&
            strcmp(lrd_path_base(pattern), ignored[i]) != 0)
            return false;
    }
    return true;
}

static bool any_meant(const lrd_names_t *path, const char *pattern)
{
    for (size_t i = 0; i < path->n; i++) {
        if (is_meant(pattern, path->name[i]))
            return true;
    }
    return false;
}

/* The split's name in SPLIT-NNNNN-of-NNNNN...; its length, 0: the file is no such one. */
static size_t split_bytes(const char *file)
{
    for (size_t n = strlen(file); n > 0; n--) {
        if (file[n - 1] == '-' && n > 1 && lrd_hub_pattern_matches(sharded, file + n - 1))
            return n - 1;
    }
    return 0;
}

/* Files of data/ that have their split in their names. */
static lrd_status_t infer_sharded(const lrd_names_t *path, const char *base, lrd_hub_rules_t *rules)
{
    lrd_status_t status = LRD_OK;
    char *any = NULL, *split = NULL, *pattern = NULL;
    LRD_ALLOC(any, lrd_asprintf("%sdata/*%s", base, sharded));
    for (size_t i = 0; i < path->n; i++) {
        const char *file = lrd_path_base(path->name[i]);
        if (!is_meant(any, path->name[i]))
            continue;
        LRD_ALLOC(split, lrd_strndup(file, split_bytes(file)));
        size_t r = 0;
        while (r < rules->n && strcmp(rules->rule[r].split, split) != 0)
            r++;
        if (r == rules->n) {
            LRD_ALLOC(pattern, lrd_asprintf("%sdata/%s%s", base, split, sharded));
            LRD_TRY(lrd_hub_rules_add(rules, split, pattern));
        }
        lrd_free(pattern);
        lrd_free(split);
        pattern = split = NULL;
    }
out:
    lrd_free(pattern);
    lrd_free(split);
    lrd_free(any);
    return status;
}

/* Splits whose words stand in names, with patterns as these. */
static lrd_status_t infer_by_word(const lrd_names_t *path, const char *base,
                                  const char *const around[MAX_AROUND], lrd_hub_rules_t *rules)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t pattern = {0};
    for (int s = 0; s < N_SPLITS; s++) {
        for (int w = 0; w < MAX_WORDS && known[s].word[w] != NULL; w++) {
            for (int a = 0; a < MAX_AROUND && around[a] != NULL; a++) {
                const char *hole = strstr(around[a], "%s");
                lrd_buf_clear(&pattern);
                LRD_TRY(lrd_buf_printf(&pattern, "%s%.*s%s%s", base, (int)(hole - around[a]),
                                       around[a], known[s].word[w], hole + 2));
                if (any_meant(path, pattern.data))
                    LRD_TRY(lrd_hub_rules_add(rules, known[s].split, pattern.data));
            }
        }
    }
out:
    lrd_buf_release(&pattern);
    return status;
}

/* By the names of the files below `base`, "" or "folder/". */
static lrd_status_t infer_rules(const lrd_names_t *path, const char *base, lrd_hub_rules_t *rules)
{
    lrd_status_t status = LRD_OK;
    char *all = NULL;
    LRD_TRY(infer_sharded(path, base, rules));
    if (rules->n == 0)
        LRD_TRY(infer_by_word(path, base, in_folder, rules));
    if (rules->n == 0)
        LRD_TRY(infer_by_word(path, base, in_file, rules));
    if (rules->n == 0) {
        LRD_ALLOC(all, lrd_asprintf("%s**", base));
        LRD_TRY(lrd_hub_rules_add(rules, "train", all));
    }
out:
    lrd_free(all);
    return status;
}

/* The configuration that is meant; NULL: the card has none. */
static lrd_status_t choose_config(const lrd_hub_card_t *card, const lrd_hub_data_name_t *name,
                                  const lrd_hub_card_config_t **config_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_hub_card_config_t *found = NULL;
    lrd_buf_t list = {0};
    for (size_t i = 0; i < card->n; i++) {
        const lrd_hub_card_config_t *c = &card->config[i];
        const bool wanted = name->config[0] != '\0'
                                ? strcmp(c->name, name->config) == 0
                                : card->n == 1 || c->is_default || strcmp(c->name, "default") == 0;
        if (wanted && found == NULL)
            found = c;
        if (list.size < MAX_LISTED)
            LRD_TRY(lrd_buf_printf(&list, "%s%.100s", i > 0 ? ", " : "", c->name));
    }
    LRD_CHECK(found != NULL || (card->n == 0 &&
                                (name->config[0] == '\0' || strcmp(name->config, "default") == 0)),
              LRD_ERR_CONFIG, "%s has %s%s; write one of them behind the name: %s#CONFIGURATION/%s",
              name->repo.repo,
              card->n == 0              ? "no configurations"
              : name->config[0] != '\0' ? "no such configuration, but "
                                        : "several configurations: ",
              list.data != NULL ? list.data : "", name->repo.repo, name->split);
    *config_out = found;
out:
    lrd_buf_release(&list);
    return status;
}

/* Kinds of data files by the ends of their names. */
typedef enum kind { KIND_NONE, KIND_PARQUET, KIND_JSON, KIND_OTHER } kind_t;

static kind_t kind_of(const char *path)
{
    static const struct {
        const char *end;
        kind_t kind;
    } ends[] = {{".parquet", KIND_PARQUET}, {".json", KIND_JSON},  {".jsonl", KIND_JSON},
                {".ndjson", KIND_JSON},     {".csv", KIND_OTHER},  {".tsv", KIND_OTHER},
                {".arrow", KIND_OTHER},     {".txt", KIND_OTHER},  {".xml", KIND_OTHER},
                {".zip", KIND_OTHER},       {".tar", KIND_OTHER},  {".gz", KIND_OTHER},
                {".zst", KIND_OTHER},       {".bz2", KIND_OTHER},  {".xz", KIND_OTHER},
                {".h5", KIND_OTHER},        {".hdf5", KIND_OTHER}, {".jpg", KIND_OTHER},
                {".jpeg", KIND_OTHER},      {".png", KIND_OTHER},  {".wav", KIND_OTHER},
                {".mp3", KIND_OTHER},       {".flac", KIND_OTHER}, {".mp4", KIND_OTHER}};
    const char *dot = strrchr(lrd_path_base(path), '.');
    for (size_t i = 0; dot != NULL && i < sizeof ends / sizeof ends[0]; i++) {
        if (strcmp(dot, ends[i].end) == 0)
            return ends[i].kind;
    }
    return KIND_NONE;
}

static bool has_name(const lrd_names_t *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++) {
        if (strcmp(names->name[i], name) == 0)
            return true;
    }
    return false;
}

static lrd_status_t add_name(lrd_names_t *names, size_t *capacity, const char *name)
{
    lrd_status_t status = LRD_OK;
    char *copy = NULL;
    LRD_ALLOC(copy, lrd_strdup(name));
    LRD_GROW(names->name, names->n, *capacity);
    names->name[names->n++] = copy;
    copy = NULL;
out:
    lrd_free(copy);
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Those that the rules of the split mean, rule after rule, each once, whatever kind they are. */
static lrd_status_t collect(const lrd_hub_rules_t *rules, const char *base, const lrd_names_t *path,
                            const char *split, lrd_names_t *files)
{
    lrd_status_t status = LRD_OK;
    char *pattern = NULL;
    size_t capacity = 0;
    for (size_t r = 0; r < rules->n; r++) {
        if (strcmp(rules->rule[r].split, split) != 0)
            continue;
        LRD_CHECK(
            strstr(rules->rule[r].pattern, "://") == NULL, LRD_ERR_UNSUPPORTED,
            "the split %s lies elsewhere, at %.200s: only files of the repository are fetched",
            split, rules->rule[r].pattern);
        const char *relative = rules->rule[r].pattern;
        relative += strncmp(relative, "./", 2) == 0 ? 2 : 0;
        LRD_ALLOC(pattern, lrd_asprintf("%s%s", base, relative));
        LRD_CHECK(has_magic(pattern) || has_name(path, pattern), LRD_ERR_FORMAT,
                  "the README.md of the repository says that %s is of the split %s, and there is "
                  "no such file",
                  pattern, split);
        const size_t first = files->n;
        for (size_t i = 0; i < path->n; i++) {
            if (is_meant(pattern, path->name[i]) && kind_of(path->name[i]) != KIND_NONE &&
                !has_name(files, path->name[i]))
                LRD_TRY(add_name(files, &capacity, path->name[i]));
        }
        if (files->n > first)
            qsort(files->name + first, files->n - first, sizeof files->name[0], compare_names);
        lrd_free(pattern);
        pattern = NULL;
    }
out:
    lrd_free(pattern);
    return status;
}

/* Leaves the kind that most files are of. */
static lrd_status_t keep_one_kind(const char *repo, const char *split, lrd_names_t *files)
{
    lrd_status_t status = LRD_OK;
    size_t count[KIND_OTHER + 1] = {0}, n = 0;
    for (size_t i = 0; i < files->n; i++)
        count[kind_of(files->name[i])]++;
    kind_t kind = count[KIND_PARQUET] >= count[KIND_JSON] ? KIND_PARQUET : KIND_JSON;
    if (count[KIND_OTHER] > count[kind])
        kind = KIND_OTHER;
    LRD_CHECK(
        count[kind] > 0 && kind != KIND_OTHER, LRD_ERR_UNSUPPORTED,
        "%s: the split %s has no files .parquet, .json or .jsonl, which are read%s%.200s. Other "
        "files become data.format: jsonl by to_json() of the Python package datasets",
        repo, split, files->n > 0 ? ", but " : "", files->n > 0 ? files->name[0] : "");
    for (size_t i = 0; i < files->n; i++) {
        if (kind_of(files->name[i]) == kind)
            files->name[n++] = files->name[i];
        else
            lrd_free(files->name[i]);
    }
    files->n = n;
out:
    return status;
}

/* All numbers of NNNNN-of-NNNNN are there, for each file's own beginning. */
static bool has_all_shards(const lrd_names_t *files)
{
    for (size_t i = 0; i < files->n; i++) {
        const char *path = files->name[i];
        const size_t folder = (size_t)(lrd_path_base(path) - path), n = split_bytes(path + folder);
        if (n == 0)
            return false;
        const size_t before = folder + n + 1; /* with the "-" */
        const long total = strtol(path + before + strlen("00000-of-"), NULL, 10);
        long found = 0;
        for (size_t j = 0; j < files->n; j++)
            found += strncmp(files->name[j], path, before) == 0 &&
                     split_bytes(files->name[j] + folder) == n;
        if (found < total)
            return false;
    }
    return files->n > 0;
}

static bool is_literal(const lrd_hub_rules_t *rules, const char *split)
{
    for (size_t i = 0; i < rules->n; i++) {
        if (strcmp(rules->rule[i].split, split) == 0 && has_magic(rules->rule[i].pattern))
            return false;
    }
    return true;
}

static lrd_status_t check_split(const lrd_hub_rules_t *rules, const lrd_hub_data_name_t *name)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t list = {0};
    for (size_t i = 0; i < rules->n; i++) {
        const char *split = rules->rule[i].split;
        if (strcmp(split, name->split) == 0)
            goto out;
        if ((i == 0 || strcmp(split, rules->rule[i - 1].split) != 0) && list.size < MAX_LISTED)
            LRD_TRY(lrd_buf_printf(&list, "%s%.100s", list.size > 0 ? ", " : "", split));
    }
    LRD_FAIL(LRD_ERR_CONFIG,
             "%s has no split %s, but: %s. Write one of them behind the name: %s#%s%sSPLIT",
             name->repo.repo, name->split, list.data != NULL ? list.data : "none", name->repo.repo,
             name->config, name->config[0] != '\0' ? "/" : "");
out:
    lrd_buf_release(&list);
    return status;
}

lrd_status_t lrd_hub_split_find(const lrd_hub_card_t *card, const lrd_names_t *path,
                                const lrd_hub_data_name_t *name, lrd_names_t *files_out,
                                bool *complete_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_hub_card_config_t *config = NULL;
    lrd_hub_rules_t inferred = {.n = 0};
    const lrd_hub_rules_t *rules = &inferred;
    lrd_names_t files = {.n = 0};
    char *base = NULL;
    LRD_TRY(choose_config(card, name, &config));
    const char *folder = config != NULL ? config->data_dir : "";
    const size_t bytes = strlen(folder);
    LRD_ALLOC(base, lrd_asprintf("%s%s", folder, bytes > 0 && folder[bytes - 1] != '/' ? "/" : ""));
    if (config != NULL && config->rules.n > 0)
        rules = &config->rules;
    else
        LRD_TRY(infer_rules(path, base, &inferred));
    LRD_TRY(check_split(rules, name));
    LRD_TRY(collect(rules, rules == &inferred ? "" : base, path, name->split, &files));
    LRD_TRY(keep_one_kind(name->repo.repo, name->split, &files));
    *complete_out = is_literal(rules, name->split) || has_all_shards(&files);
    *files_out = files;
    files = (lrd_names_t){.n = 0};
out:
    lrd_names_free(&files);
    lrd_hub_rules_release(&inferred);
    lrd_free(base);
    return status;
}
