#include "lora/target.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"

#include <oniguruma.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

enum { MAX_PATTERN_BYTES = 4096, MAX_NAMES = 8 };

static pthread_once_t onig_once = PTHREAD_ONCE_INIT;
static int onig_started;

static void onig_start(void)
{
    OnigEncoding encoding[] = {ONIG_ENCODING_UTF8};
    onig_started = onig_initialize(encoding, 1);
}

/* Compiles before + pattern + after in Python's syntax; `key` is the setting, for messages. */
static lrd_status_t regex_compile(const char *key, const char *before, const char *pattern,
                                  const char *after, regex_t **regex_out)
{
    lrd_status_t status = LRD_OK;
    char *text = NULL;
    LRD_CHECK(strlen(pattern) <= MAX_PATTERN_BYTES, LRD_ERR_CONFIG,
              "lora.%s: a regular expression of more than %d bytes", key, MAX_PATTERN_BYTES);
    pthread_once(&onig_once, onig_start);
    LRD_CHECK(onig_started == ONIG_NORMAL, LRD_ERR_INTERNAL, "Oniguruma does not start: %d",
              onig_started);
    LRD_ALLOC(text, lrd_asprintf("%s%s%s", before, pattern, after));
    OnigErrorInfo info = {0};
    const OnigUChar *begin = (const OnigUChar *)text;
    const int error = onig_new(regex_out, begin, begin + strlen(text), ONIG_OPTION_NONE,
                               ONIG_ENCODING_UTF8, ONIG_SYNTAX_PYTHON, &info);
    if (error != ONIG_NORMAL) {
        OnigUChar why[ONIG_MAX_ERROR_MESSAGE_LEN];
        *regex_out = NULL;
        onig_error_code_to_str(why, error, &info);
        LRD_FAIL(error == ONIGERR_MEMORY ? LRD_ERR_NO_MEMORY : LRD_ERR_CONFIG,
                 "lora.%s: \"%s\" is not a valid regular expression: %s", key, pattern,
                 (const char *)why);
    }
out:
    lrd_free(text);
    return status;
}

/* A regular expression that must match the whole path (re.fullmatch). */
static lrd_status_t regex_compile_whole(const char *key, const char *pattern, regex_t **regex_out)
{
    lrd_status_t status = LRD_OK;
    regex_t *alone = NULL;
    LRD_TRY(regex_compile(key, "", pattern, "", &alone)); /* "a)(b" is not valid, (?:a)(b) is */
    LRD_TRY(regex_compile(key, "(?:", pattern, ")\\Z", regex_out));
out:
    onig_free(alone);
    return status;
}

/* Does it match from the start of the path? */
static lrd_status_t regex_match(const char *key, regex_t *regex, const char *path, bool *match_out)
{
    lrd_status_t status = LRD_OK;
    const OnigUChar *begin = (const OnigUChar *)path, *end = begin + strlen(path);
    const int found = onig_match(regex, begin, end, begin, NULL, ONIG_OPTION_NONE);
    if (found < 0 && found != ONIG_MISMATCH) {
        OnigUChar why[ONIG_MAX_ERROR_MESSAGE_LEN];
        onig_error_code_to_str(why, found);
        LRD_FAIL(found == ONIGERR_MEMORY ? LRD_ERR_NO_MEMORY : LRD_ERR_CONFIG,
                 "lora.%s: the regular expression gave up on \"%s\": %s", key, path,
                 (const char *)why);
    }
    *match_out = found >= 0;
out:
    return status;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* The path ends with "." and the name. */
static bool ends_with(const char *path, const char *name)
{
    const size_t n = strlen(path), m = strlen(name);
    return n > m && path[n - m - 1] == '.' && memcmp(path + n - m, name, m) == 0;
}

static bool is_in_list(const char *path, char *const *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(path, name[i]) == 0)
            return true;
    return false;
}

static bool ends_in_list(const char *path, char *const *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ends_with(path, name[i]))
            return true;
    return false;
}

/* The first number that is a part of the path, neither one of its first two parts nor its last:
 * PEFT's ".*?\.[^.]*\.(\d+)\.". -1: none. */
static int64_t layer_of(const char *path)
{
    const char *dot = strchr(path, '.');
    const char *part = dot != NULL ? strchr(dot + 1, '.') : NULL;
    for (; part != NULL; part = strchr(part + 1, '.')) {
        const size_t n = strspn(part + 1, "0123456789");
        if (n == 0 || part[1 + n] != '.')
            continue;
        int64_t number = 0;
        for (size_t i = 1; i <= n && number < 1000000000; i++)
            number = number * 10 + (part[i] - '0');
        return number;
    }
    return -1;
}

static bool is_layer_wanted(const lrd_integers_t *layers, const char *path)
{
    if (layers->n == 0)
        return true;
    const int64_t layer = layer_of(path);
    for (size_t i = 0; i < layers->n; i++)
        if (layers->value[i] == layer)
            return true;
    return false;
}

/* ---- which ----------------------------------------------------------------------------------- */

/* What the settings say, compiled. */
typedef struct rules {
    const lrd_lora_settings_t *settings;
    char *const *name; /* of target_modules as a list */
    size_t n_names;
    bool is_all_linear;
    regex_t *target, *exclude; /* of settings that are single texts; else NULL */
    regex_t **rank, **alpha;   /* of the patterns */
    bool *rank_used, *alpha_used;
} rules_t;

static void patterns_release(regex_t **regex, size_t n)
{
    for (size_t i = 0; regex != NULL && i < n; i++)
        onig_free(regex[i]);
    lrd_free(regex);
}

static void rules_release(rules_t *rules)
{
    onig_free(rules->target);
    onig_free(rules->exclude);
    patterns_release(rules->rank, rules->settings->rank_pattern.n);
    patterns_release(rules->alpha, rules->settings->alpha_pattern.n);
    lrd_free(rules->rank_used);
    lrd_free(rules->alpha_used);
}

static lrd_status_t patterns_compile(const char *key, const lrd_patterns_t *patterns,
                                     regex_t **regex)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < patterns->n; i++)
        LRD_TRY(regex_compile(key, "(.*\\.)?(", patterns->entry[i].text, ")$", &regex[i]));
out:
    return status;
}

/* `fallback` points to the name that stands for target_modules null.
 * Release the rules also after a failure. */
static lrd_status_t rules_make(const lrd_lora_settings_t *s, char *const *fallback, rules_t *rules)
{
    lrd_status_t status = LRD_OK;
    *rules = (rules_t){.settings = s};
    if (s->target_modules.n == 0) {
        LRD_CHECK(*fallback != NULL, LRD_ERR_CONFIG,
                  "lora.target_modules is needed: this model has no default for it");
        rules->name = fallback;
        rules->n_names = 1;
    } else if (s->target_modules.is_single) {
        LRD_CHECK(s->layers_to_transform.n == 0, LRD_ERR_CONFIG,
                  "lora.layers_to_transform cannot be used when lora.target_modules is a single "
                  "text");
        rules->is_all_linear = strcasecmp(s->target_modules.text[0], "all-linear") == 0;
        if (!rules->is_all_linear)
            LRD_TRY(
                regex_compile_whole("target_modules", s->target_modules.text[0], &rules->target));
    } else {
        rules->name = s->target_modules.text;
        rules->n_names = s->target_modules.n;
    }
    if (s->exclude_modules.is_single && s->exclude_modules.text[0][0] != '\0')
        LRD_TRY(
            regex_compile_whole("exclude_modules", s->exclude_modules.text[0], &rules->exclude));
    LRD_NEW(rules->rank, s->rank_pattern.n);
    LRD_NEW(rules->alpha, s->alpha_pattern.n);
    LRD_NEW(rules->rank_used, s->rank_pattern.n);
    LRD_NEW(rules->alpha_used, s->alpha_pattern.n);
    LRD_TRY(patterns_compile("rank_pattern", &s->rank_pattern, rules->rank));
    LRD_TRY(patterns_compile("alpha_pattern", &s->alpha_pattern, rules->alpha));
out:
    return status;
}

static lrd_status_t is_excluded(const rules_t *rules, const char *path, bool *is_out)
{
    const lrd_texts_t *exclude = &rules->settings->exclude_modules;
    if (rules->exclude != NULL)
        return regex_match("exclude_modules", rules->exclude, path, is_out);
    *is_out = !exclude->is_single && (is_in_list(path, exclude->text, exclude->n) ||
                                      ends_in_list(path, exclude->text, exclude->n));
    return LRD_OK;
}

/* exclude_modules apart. */
static lrd_status_t is_wanted(const rules_t *rules, const lrd_module_t *module, bool *is_out)
{
    const char *path = module->path;
    if (rules->target != NULL)
        return regex_match("target_modules", rules->target, path, is_out);
    if (rules->is_all_linear)
        *is_out = module->kind == LRD_MODULE_LINEAR;
    else
        *is_out = is_in_list(path, rules->name, rules->n_names) ||
                  (ends_in_list(path, rules->name, rules->n_names) &&
                   is_layer_wanted(&rules->settings->layers_to_transform, path));
    return LRD_OK;
}

/* The value of the first pattern that matches, or the fallback. */
static lrd_status_t pattern_value(const char *key, const lrd_patterns_t *patterns, regex_t **regex,
                                  bool *used, const char *path, double fallback, double *value_out)
{
    lrd_status_t status = LRD_OK;
    bool is_found = false;
    double value = fallback;
    for (size_t i = 0; i < patterns->n; i++) {
        bool is_match = false;
        LRD_TRY(regex_match(key, regex[i], path, &is_match));
        used[i] = used[i] || is_match;
        if (is_match && !is_found) {
            value = patterns->entry[i].value;
            is_found = true;
        }
    }
    *value_out = value;
out:
    return status;
}

static lrd_status_t target_make(const rules_t *rules, const lrd_module_t *module,
                                lrd_target_t *target)
{
    lrd_status_t status = LRD_OK;
    const lrd_lora_settings_t *s = rules->settings;
    double r, alpha;
    LRD_CHECK(module->kind == LRD_MODULE_LINEAR && module->layer >= 0 && module->place >= 0,
              LRD_ERR_UNSUPPORTED,
              "lora.target_modules matches %s (%s): only the linear layers of the model's blocks "
              "can have an adapter",
              module->path, module->class_name);
    LRD_TRY(pattern_value("rank_pattern", &s->rank_pattern, rules->rank, rules->rank_used,
                          module->path, (double)s->r, &r));
    LRD_TRY(pattern_value("alpha_pattern", &s->alpha_pattern, rules->alpha, rules->alpha_used,
                          module->path, s->lora_alpha, &alpha));
    target->r = (int64_t)r;
    target->alpha = alpha;
out:
    return status;
}

static const char *last_part(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL ? dot + 1 : path;
}

/* Fails: nothing matches. The message names the linear layers there are. */
static lrd_status_t nothing_matches(const lrd_lora_settings_t *s, const lrd_module_t *modules,
                                    size_t n, const char *fallback)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t wanted = {0}, there = {0};
    const char *seen[MAX_NAMES];
    int n_seen = 0;
    LRD_TRY(lrd_buf_add_text(&wanted, s->target_modules.n == 0 ? fallback : ""));
    for (size_t i = 0; i < s->target_modules.n; i++)
        LRD_TRY(lrd_buf_printf(&wanted, "%s%s", i > 0 ? ", " : "", s->target_modules.text[i]));
    LRD_TRY(lrd_buf_add_text(&there, ""));
    for (size_t i = 0; i < n && n_seen < MAX_NAMES; i++) {
        bool is_new = modules[i].kind == LRD_MODULE_LINEAR;
        for (int k = 0; k < n_seen && is_new; k++)
            is_new = strcmp(seen[k], last_part(modules[i].path)) != 0;
        if (!is_new)
            continue;
        seen[n_seen] = last_part(modules[i].path);
        LRD_TRY(lrd_buf_printf(&there, "%s%s", n_seen > 0 ? ", " : "", seen[n_seen]));
        n_seen++;
    }
    LRD_FAIL(LRD_ERR_CONFIG,
             "lora.target_modules: no layer of the model matches \"%s\"%s%s; its linear layers "
             "are named %s",
             wanted.data, s->exclude_modules.n > 0 ? " beside lora.exclude_modules" : "",
             s->layers_to_transform.n > 0 ? " in the blocks of lora.layers_to_transform" : "",
             there.data);
out:
    lrd_buf_release(&wanted);
    lrd_buf_release(&there);
    return status;
}

static void warn_unused(const char *key, const lrd_patterns_t *patterns, const bool *used)
{
    for (size_t i = 0; i < patterns->n; i++)
        if (!used[i])
            lrd_warn("lora.%s: \"%s\" matches no layer that has an adapter (a pattern must match "
                     "the end of the path, from the start of a name)",
                     key, patterns->entry[i].text);
}

lrd_status_t lrd_targets_find(const lrd_lora_settings_t *settings, const lrd_module_t *modules,
                              size_t n, const char *fallback, lrd_target_t **targets_out,
                              size_t *n_out)
{
    lrd_status_t status = LRD_OK;
    rules_t rules;
    lrd_target_t *targets = NULL;
    size_t n_targets = 0, n_excluded = 0;
    char *fallback_name = (char *)fallback; /* only read */
    LRD_TRY(rules_make(settings, &fallback_name, &rules));
    LRD_NEW(targets, n);
    for (size_t i = 0; i < n; i++) {
        bool is = false;
        if (modules[i].path[0] == '\0')
            continue; /* the model itself */
        LRD_TRY(is_excluded(&rules, modules[i].path, &is));
        if (is) {
            n_excluded++;
            continue;
        }
        LRD_TRY(is_wanted(&rules, &modules[i], &is));
        if (!is)
            continue;
        targets[n_targets].module = i;
        LRD_TRY(target_make(&rules, &modules[i], &targets[n_targets]));
        n_targets++;
    }
    if (n_targets == 0)
        LRD_TRY(nothing_matches(settings, modules, n, fallback));
    if (settings->exclude_modules.n > 0 && n_excluded == 0)
        lrd_warn("lora.exclude_modules excludes nothing");
    warn_unused("rank_pattern", &settings->rank_pattern, rules.rank_used);
    warn_unused("alpha_pattern", &settings->alpha_pattern, rules.alpha_used);
    *targets_out = targets;
    *n_out = n_targets;
    targets = NULL;
out:
    rules_release(&rules);
    lrd_free(targets);
    return status;
}
