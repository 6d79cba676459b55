#include "hub/hub_card.h"

#include "base/mem.h"

#include <string.h>
#include <yaml.h>

typedef struct reader {
    yaml_document_t document;
    const char *name;
    lrd_hub_card_t card;
} reader_t;

lrd_status_t lrd_hub_rules_add(lrd_hub_rules_t *rules, const char *split, const char *pattern)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_rule_t rule = {.split = NULL};
    LRD_ALLOC(rule.split, lrd_strdup(split));
    LRD_ALLOC(rule.pattern, lrd_strdup(pattern));
    LRD_GROW(rules->rule, rules->n, rules->capacity);
    rules->rule[rules->n++] = rule;
    rule = (lrd_hub_rule_t){.split = NULL};
out:
    lrd_free(rule.split);
    lrd_free(rule.pattern);
    return status;
}

void lrd_hub_rules_release(lrd_hub_rules_t *rules)
{
    for (size_t i = 0; i < rules->n; i++) {
        lrd_free(rules->rule[i].split);
        lrd_free(rules->rule[i].pattern);
    }
    lrd_free(rules->rule);
    *rules = (lrd_hub_rules_t){.n = 0};
}

void lrd_hub_card_release(lrd_hub_card_t *card)
{
    for (size_t i = 0; i < card->n; i++) {
        lrd_free(card->config[i].name);
        lrd_free(card->config[i].data_dir);
        lrd_hub_rules_release(&card->config[i].rules);
    }
    lrd_free(card->config);
    *card = (lrd_hub_card_t){.n = 0};
}

/* The YAML between the first two lines of "---"; false: there is none. */
static bool find_yaml(const char *text, size_t bytes, const char **yaml_out, size_t *bytes_out)
{
    const char *end = text + bytes, *at = text;
    while (at < end && strchr(" \t\r\n", *at) != NULL && *at != '\0')
        at++;
    if (end - at < 4 || memcmp(at, "---", 3) != 0 || (at[3] != '\n' && at[3] != '\r'))
        return false;
    *yaml_out = at + 3;
    for (at += 3; (at = memmem(at, (size_t)(end - at), "\n---", 4)) != NULL; at++) {
        if (end - at == 4 || at[4] == '\n' || at[4] == '\r') {
            *bytes_out = (size_t)(at + 1 - *yaml_out);
            return true;
        }
    }
    return false;
}

static const yaml_node_t *node_of(reader_t *r, yaml_node_item_t item)
{
    return yaml_document_get_node(&r->document, item);
}

/* A scalar's text; NULL: it is none. */
static const char *text_of(const yaml_node_t *node)
{
    return node != NULL && node->type == YAML_SCALAR_NODE &&
                   strlen((const char *)node->data.scalar.value) == node->data.scalar.length
               ? (const char *)node->data.scalar.value
               : NULL;
}

static const yaml_node_t *member(reader_t *r, const yaml_node_t *map, const char *key)
{
    if (map == NULL || map->type != YAML_MAPPING_NODE)
        return NULL;
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top;
         p++) {
        const char *text = text_of(node_of(r, p->key));
        if (text != NULL && strcmp(text, key) == 0)
            return node_of(r, p->value);
    }
    return NULL;
}

static lrd_status_t fail_list(const reader_t *r, const char *what)
{
    return lrd_fail(LRD_ERR_FORMAT, __FILE__, __LINE__,
                    "%s: \"configs\" in the YAML at its top: %s", r->name, what);
}

/* A path, or a list of paths. */
static lrd_status_t add_paths(reader_t *r, const yaml_node_t *node, const char *split,
                              lrd_hub_rules_t *rules)
{
    lrd_status_t status = LRD_OK;
    const char *path = text_of(node);
    if (path != NULL) {
        LRD_TRY(lrd_hub_rules_add(rules, split, path));
        goto out;
    }
    LRD_TRY(node != NULL && node->type == YAML_SEQUENCE_NODE
                ? LRD_OK
                : fail_list(r, "a path is neither text nor a list"));
    for (const yaml_node_item_t *i = node->data.sequence.items.start;
         i < node->data.sequence.items.top; i++) {
        path = text_of(node_of(r, *i));
        LRD_TRY(path != NULL ? LRD_OK : fail_list(r, "a path is no text"));
        LRD_TRY(lrd_hub_rules_add(rules, split, path));
    }
out:
    return status;
}

static bool is_list_of_maps(reader_t *r, const yaml_node_t *node)
{
    if (node->type != YAML_SEQUENCE_NODE ||
        node->data.sequence.items.start == node->data.sequence.items.top)
        return false;
    return node_of(r, *node->data.sequence.items.start)->type == YAML_MAPPING_NODE;
}

static lrd_status_t add_files(reader_t *r, const yaml_node_t *files, lrd_hub_rules_t *rules)
{
    lrd_status_t status = LRD_OK;
    if (is_list_of_maps(r, files)) {
        for (const yaml_node_item_t *i = files->data.sequence.items.start;
             i < files->data.sequence.items.top; i++) {
            const yaml_node_t *entry = node_of(r, *i);
            const char *split = text_of(member(r, entry, "split"));
            LRD_TRY(split != NULL ? LRD_OK : fail_list(r, "data_files without a split"));
            LRD_TRY(add_paths(r, member(r, entry, "path"), split, rules));
        }
    } else {
        LRD_TRY(add_paths(r, files, "train", rules));
    }
out:
    return status;
}

static bool is_true(const char *text)
{
    return text != NULL && (strcmp(text, "true") == 0 || strcmp(text, "True") == 0);
}

static lrd_status_t add_config(reader_t *r, const yaml_node_t *node)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_card_t *card = &r->card;
    const char *name = text_of(member(r, node, "config_name")),
               *data_dir = text_of(member(r, node, "data_dir"));
    const yaml_node_t *files = member(r, node, "data_files");
    LRD_TRY(node != NULL && node->type == YAML_MAPPING_NODE
                ? LRD_OK
                : fail_list(r, "an entry is no map with config_name and data_files"));
    LRD_GROW(card->config, card->n, card->capacity);
    lrd_hub_card_config_t *c = &card->config[card->n++];
    *c = (lrd_hub_card_config_t){.is_default = is_true(text_of(member(r, node, "default")))};
    LRD_ALLOC(c->name, lrd_strdup(name != NULL ? name : "default"));
    LRD_ALLOC(c->data_dir, lrd_strdup(data_dir != NULL ? data_dir : ""));
    if (files != NULL)
        LRD_TRY(add_files(r, files, &c->rules));
out:
    return status;
}

static lrd_status_t read_configs(reader_t *r)
{
    lrd_status_t status = LRD_OK;
    const yaml_node_t *configs = member(r, yaml_document_get_root_node(&r->document), "configs");
    if (configs == NULL)
        goto out;
    LRD_TRY(configs->type == YAML_SEQUENCE_NODE ? LRD_OK : fail_list(r, "it is no list"));
    for (const yaml_node_item_t *i = configs->data.sequence.items.start;
         i < configs->data.sequence.items.top; i++)
        LRD_TRY(add_config(r, node_of(r, *i)));
out:
    return status;
}

lrd_status_t lrd_hub_card_read(const char *text, size_t bytes, const char *name,
                               lrd_hub_card_t *card_out)
{
    lrd_status_t status = LRD_OK;
    reader_t r = {.name = name};
    yaml_parser_t parser;
    const char *yaml;
    size_t yaml_bytes;
    bool began = false, loaded = false;
    if (bytes == 0 || !find_yaml(text, bytes, &yaml, &yaml_bytes))
        goto out;
    LRD_CHECK(yaml_parser_initialize(&parser), LRD_ERR_NO_MEMORY, "out of memory for YAML");
    began = true;
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml, yaml_bytes);
    loaded = yaml_parser_load(&parser, &r.document);
    LRD_CHECK(loaded || parser.error != YAML_MEMORY_ERROR, LRD_ERR_NO_MEMORY,
              "out of memory for YAML");
    LRD_CHECK(loaded, LRD_ERR_FORMAT, "%s: the YAML at its top cannot be read: %s, line %zu", name,
              parser.problem != NULL ? parser.problem : "not valid", parser.problem_mark.line + 1);
    LRD_TRY(read_configs(&r));
out:
    if (loaded)
        yaml_document_delete(&r.document);
    if (began)
        yaml_parser_delete(&parser);
    if (status == LRD_OK)
        *card_out = r.card;
    else
        lrd_hub_card_release(&r.card);
    return status;
}
