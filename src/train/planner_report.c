/* What the planner says: the map as accelerate writes it, and a table of ranks. */
#include "train/planner.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

const char *lrd_planner_recompute_name(lrd_checkpointing_t recompute)
{
    return recompute == LRD_CHECKPOINTING_BLOCK       ? "block"
           : recompute == LRD_CHECKPOINTING_ATTENTION ? "attention"
                                                      : "nothing";
}

static int64_t count(const lrd_arena_t *arena, const char *category)
{
    int64_t bytes = 0;
    for (int i = 0; i < arena->n_categories; i++)
        bytes +=
            strcmp(arena->category[i].name, category) == 0 ? (int64_t)arena->category[i].bytes : 0;
    return bytes;
}

lrd_planner_row_t lrd_planner_row(const lrd_memory_t *m, int64_t room)
{
    lrd_planner_row_t row = {
        .weights =
            (int64_t)m->mapped_bytes + count(&m->model, "weights") + count(&m->model, "slots"),
        .activations = count(&m->step, "activations"),
        .room = room,
    };
    row.rest = (int64_t)(lrd_memory_needed(m) + m->mapped_bytes) - row.weights - row.activations;
    return row;
}

static void append(char out[64], const char *text)
{
    const size_t at = strlen(out);
    snprintf(out + at, 64 - at, "%s%s", at > 0 ? ", " : "", text);
}

/* "embeddings, 0-6" or "7-11, head". */
static void describe_runs(const lrd_placement_t *p, int stage, char out[64])
{
    char blocks[32];
    out[0] = '\0';
    for (int k = stage; k < p->n_runs; k += p->n_stages) {
        const lrd_span_t run = lrd_placement_run(p, k);
        const int n = run.last - run.first;
        snprintf(blocks, sizeof blocks, n > 1 ? "%d-%d" : "%d", run.first, run.last - 1);
        if (run.embed)
            append(out, "embeddings");
        if (n > 0)
            append(out, blocks);
        if (run.head)
            append(out, "head");
    }
}

lrd_status_t lrd_planner_print_table(const lrd_placement_t *p, const lrd_planner_row_t *row, int n,
                                     lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_buf_printf(text, "  %4s %-16s %-24s %9s %11s %9s %9s %9s\n", "rank", "host",
                           "layers", "weights", "activations", "rest", "in all", "headroom"));
    for (int r = 0; r < n; r++) {
        char layers[64];
        const int64_t all = row[r].weights + row[r].activations + row[r].rest;
        describe_runs(p, r % p->n_stages, layers);
        LRD_TRY(lrd_buf_printf(text, "  %4d %-16.16s %-24s %9.1f %11.1f %9.1f %9.1f %9.1f\n", r,
                               row[r].host, layers, (double)row[r].weights / 0x1p20,
                               (double)row[r].activations / 0x1p20, (double)row[r].rest / 0x1p20,
                               (double)all / 0x1p20, (double)(row[r].room - all) / 0x1p20));
    }
out:
    return status;
}

lrd_status_t lrd_planner_print_offload(const lrd_placement_t *p, size_t block_bytes,
                                       lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    const double mib = (double)block_bytes / 0x1p20;
    for (int stage = 0; stage < p->n_stages && p->home != NULL; stage++) {
        const int on_host = lrd_placement_count_home(p, stage, LRD_HOME_HOST);
        const int in_files = lrd_placement_count_home(p, stage, LRD_HOME_FILE);
        if (on_host + in_files == 0)
            continue;
        LRD_TRY(lrd_buf_printf(text, "  stage %d has ", stage));
        if (on_host > 0)
            LRD_TRY(lrd_buf_printf(text, "%d block%s (%.1f MiB) in host memory%s", on_host,
                                   on_host == 1 ? "" : "s", on_host * mib,
                                   in_files > 0 ? " and " : "\n"));
        if (in_files > 0)
            LRD_TRY(lrd_buf_printf(text, "%d block%s (%.1f MiB) in files\n", in_files,
                                   in_files == 1 ? "" : "s", in_files * mib));
    }
out:
    return status;
}

/* Everyone's row. */
static lrd_status_t gather(const lrd_session_t *s, lrd_planner_row_t *row)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(s->o.comm), rank = lrd_comm_rank(s->o.comm);
    size_t *offset = NULL;
    LRD_NEW(offset, size + 1);
    for (int r = 0; r <= size; r++)
        offset[r] = (size_t)r * sizeof *row;
out:
    status = lrd_agree(s->o.comm, status);
    if (status == LRD_OK) {
        row[rank] = lrd_planner_row(&s->engine.memory, s->rooms[rank]);
        snprintf(row[rank].host, sizeof row[rank].host, "%.31s", lrd_comm_host(s->o.comm));
        status = lrd_comm_all_gather(s->o.comm, &row[rank], row, offset);
    }
    lrd_free(offset);
    return status;
}

static lrd_status_t say(const lrd_session_t *s, const lrd_planner_row_t *row)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t map = {0}, table = {0}, away = {0};
    const lrd_placement_t *p = &s->placement;
    if (lrd_comm_rank(s->o.comm) != 0)
        goto out;
    LRD_TRY(lrd_placement_print_map(p, &map));
    LRD_TRY(lrd_planner_print_table(p, row, lrd_comm_size(s->o.comm), &table));
    LRD_TRY(lrd_planner_print_offload(p, lrd_weights_block_bytes(s->engine.weights), &away));
    lrd_info("device_map = %s", map.data);
    if (p->n_stages > 1)
        lrd_info("Memory of each rank, in MiB:\n%s", table.data);
    if (away.size > 0)
        lrd_info("Weights that are not kept on their device:\n%s", away.data);
out:
    lrd_buf_release(&away);
    lrd_buf_release(&table);
    lrd_buf_release(&map);
    return status;
}

lrd_status_t lrd_planner_report(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_planner_row_t *row = NULL;
    if (s->o.settings->training.gradient_checkpointing == LRD_CHECKPOINTING_AUTO &&
        lrd_comm_rank(s->o.comm) == 0)
        lrd_info("Computed again on the way back: %s", lrd_planner_recompute_name(s->recompute));
    lrd_ranks_report_graphs(s->engine.backend, s->graphs);
    if (lrd_shares_move(&s->o.settings->parallel, s->grid.n_replicas) && !s->moves)
        lrd_info("No room for the gradients of unequal shares: replicas share the micro-batches of "
                 "an update evenly");
    if (s->grid.n_stages == 1 && s->placement.home == NULL)
        return LRD_OK;
    LRD_NEW(row, lrd_comm_size(s->o.comm));
out:
    status = lrd_agree(s->o.comm, status);
    if (status == LRD_OK)
        status = gather(s, row);
    if (status == LRD_OK)
        status = lrd_agree(s->o.comm, say(s, row));
    lrd_free(row);
    return status;
}
