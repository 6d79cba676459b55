/* tests/cuda/cuda_traffic.c -- what the CUDA kernels' accesses to memory cost, as counted on the emulated device
 * (emu_traffic.h): a table of kernels, op by op, and the lines of the source that cost more than they must.
 *
 *   cuda_traffic                              a small size, 128 tokens of bloom-560m; the test: what exceeds its bound is an error
 *   cuda_traffic [options of bench/op_speed]  another size, without bounds
 *
 *   needed     MB that the op must move (kernels/op_count.c), products' operands included
 *   touched    MB of device memory that the kernel reads, and writes, each byte once
 *   moved      MB of the sectors of all its requests, over `touched`: with caches, between once and this
 *   sectors    sectors of its requests over the fewest that hold what they ask for: 1 is coalesced
 *   shared     thousands of turns at the banks of shared memory, over as many without conflicts
 */
#include "bench/op_cases.h"
#include "emu_traffic.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SITES = 400, SITES_EACH = 4 };

/* How much more than the least a kernel may have. What is not here may have what `others` says: every request coalesced and
 * without conflicts, nothing read twice, up to a row number for each warp of a block (8 x 32 bytes of a row's 2,048). */
typedef struct bound {
    const char *kernel;
    double needed;  /* touched over needed, where the kernel is all that its op launches */
    double again;   /* moved over touched */
    double sectors; /* over the least */
    double turns;   /* at the banks, over the least */
} bound_t;

static const bound_t others = {"", 1.02, 1.15, 1.01, 1.01};
static const bound_t bounds[] = {
    /* gamma and beta for every row: 4 rows' bytes moved for 2 touched; 6 for 4; gamma, 5 for 4, and two float32 of the row
     * for each of 8 warps, 512 bytes more of 8,192. */
    {"embed_kernel", 1.02, 2.08, 1.01, 1.01},
    {"addnorm_kernel", 1.02, 1.52, 1.01, 1.01},
    {"norm_backward_kernel", 1.02, 1.32, 1.01, 1.01},
    /* The factor, 32 bytes a column, for every 32 rows of 2 bytes; dropout's key, a sector for 256 columns. */
    {"project_kernel", 0, 1.57, 1.01, 1.01},
    /* For each row of 256 columns, 512 bytes: the factor for each 64 rows 128, bias for each 8 rows 64, u in two requests 64, a
     * key 32. */
    {"finish_kernel", 0, 1.57, 1.01, 1.01},
    /* For each row of 64 columns, 128 bytes: g in two requests that take half of a sector each, 64; keys 8, of four rows a
     * sector. 24 sectors of x and g where 20 are asked for. */
    {"outer_kernel", 0, 1.57, 1.2, 1.01},
    /* For each column of 128 rows, 256 bytes: B's 32 by each of four warps; u again for each 512 columns, in two requests
     * that take half of a sector each. */
    {"lora_backward_kernel", 0, 1.35, 1.02, 1.01},
    /* Logits are read twice and the gradient written: 10 bytes for 6; row numbers, target and state beside. */
    {"cross_entropy_kernel", 0, 1.69, 1.01, 1.01},
    /* Here every token has a target, which is all that is read, 4 bytes, by 8 warps. */
    {"zero_rows_kernel", 0, 64, 1.01, 1.01},
    /* For 8 rows of 32 columns, 1,024 bytes: A 1,024, B 32 for each of 64 numbers. Once in the life of a model. */
    {"merge_kernel", 1.02, 4, 1.01, 1.01},
    /* Logits, then scores written and read, and, thinned, scores and ids: 28 bytes for 4. Where top-p's first cut leaves
     * all, as here, up to 37 more passes over 4 bytes and 3 over 8. Lists that are thinned begin anywhere. */
    {"sample_kernel", 7.02, 7.2, 1.05, 1.01},
    /* One number for all rows, or a few for each, read by every warp: little is what there is beside. */
    {"sum_nll_kernel", 0, 1.3, 1.01, 1.01},
    /* Each block reads all rows of x: 8 for 16 of W, 32 for 32. At its end, sums of two rows of x lie 20 words apart. */
    {"few_rows_kernel", 1.02, 2.01, 1.01, 1.51},
    /* At a block's end: a lane's 8 sums of a head, stored by 4 bytes. */
    {"single_attn_kernel", 0, 1.15, 1.01, 1.5},
    /* A part is 66 words, which begins anywhere in a sector; the largest and the sum are read by every lane. */
    {"single_pieces_kernel", 0, 1.85, 1.12, 1.01},
};

typedef struct report {
    op_user_t user; /* first */
    bool bounded;
    int n_beyond;
    struct {
        char kernel[64];
        emu_site_t site;
    } worst[MOST_SITES];
    int n_worst;
} report_t;

typedef struct sum {
    double requests, units, least;
} sum_t;

static sum_t sum_sites(const emu_kernel_t *k, bool is_shared)
{
    sum_t sum = {0};
    for (size_t i = 0; i < k->n_sites; i++) {
        if (k->site[i].is_shared == is_shared) {
            sum.requests += k->site[i].requests;
            sum.units += k->site[i].units;
            sum.least += k->site[i].least;
        }
    }
    return sum;
}

static double over(double x, double y)
{
    return y > 0 ? x / y : 0;
}

static void print_kernel(const emu_kernel_t *k)
{
    const sum_t device = sum_sites(k, false), shared = sum_sites(k, true);
    const double touched = k->bytes_read + k->bytes_written;
    printf("  %-28s %10.3f %8.2f %8.2f %10.1f %6.2f\n", k->name, touched * 1e-6,
           over(device.units * EMU_SECTOR, touched), over(device.units, device.least),
           shared.units * 1e-3, over(shared.units, shared.least));
}

static const bound_t *find_bound(const char *kernel)
{
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        if (strcmp(bounds[i].kernel, kernel) == 0)
            return &bounds[i];
    }
    return &others;
}

static void check(report_t *r, const char *kernel, const char *what, double x, double most)
{
    if (!r->bounded || x <= most)
        return;
    printf("BEYOND ITS BOUND: %s: %s %.3f, at most %.3f\n", kernel, what, x, most);
    r->n_beyond++;
}

/* needed: 0 where the op has other kernels, or products, too. */
static void check_kernel(report_t *r, const emu_kernel_t *k, double needed)
{
    const sum_t device = sum_sites(k, false), shared = sum_sites(k, true);
    const double touched = k->bytes_read + k->bytes_written;
    const bound_t *b = find_bound(k->name);
    check(r, k->name, "touched / needed", over(touched, needed), b->needed);
    check(r, k->name, "moved / touched", over(device.units * EMU_SECTOR, touched), b->again);
    check(r, k->name, "sectors / least", over(device.units, device.least), b->sectors);
    check(r, k->name, "turns / least", over(shared.units, shared.least), b->turns);
}

static int compare_sites(const void *a, const void *b)
{
    const emu_site_t *x = a, *y = b;
    const double more = (y->units - y->least) - (x->units - x->least);
    return more > 0 ? 1 : more < 0 ? -1 : 0;
}

/* Remembers the worst of a kernel, with at least a twentieth of what it could save. */
static void keep_worst(report_t *r, const emu_kernel_t *k)
{
    emu_site_t *s = malloc((k->n_sites + 1) * sizeof *s);
    double excess[2] = {0};
    if (s == NULL)
        return;
    memcpy(s, k->site, k->n_sites * sizeof *s);
    qsort(s, k->n_sites, sizeof *s, compare_sites);
    for (size_t i = 0; i < k->n_sites; i++)
        excess[s[i].is_shared] += s[i].units - s[i].least;
    for (size_t i = 0, n = 0; i < k->n_sites && n < SITES_EACH && r->n_worst < MOST_SITES; i++) {
        const double more = s[i].units - s[i].least;
        if (more > 0 && more >= 0.05 * excess[s[i].is_shared]) {
            snprintf(r->worst[r->n_worst].kernel, sizeof r->worst[0].kernel, "%s", k->name);
            r->worst[r->n_worst++].site = s[i];
            n++;
        }
    }
    free(s);
}

static lrd_status_t begin(op_user_t *user, const char *about)
{
    (void)user, (void)about;
    printf("%-30s %10s %8s %8s %10s %6s\n", "", "touched", "moved", "sectors", "shared", "");
    return LRD_OK;
}

static lrd_status_t count(op_user_t *user, const op_case_t *c)
{
    lrd_status_t status = LRD_OK;
    size_t n;
    emu_traffic_clear();
    LRD_TRY(op_case_enqueue(c, 0));
    LRD_TRY(lrd_stream_sync(c->st));
    const emu_kernel_t *k = emu_traffic_kernels(&n);
    printf("%s: needed %.3f\n", c->label, c->bytes * 1e-6);
    for (size_t i = 0; i < n; i++) {
        print_kernel(&k[i]);
        check_kernel((report_t *)user, &k[i], n == 1 ? c->bytes : 0);
        keep_worst((report_t *)user, &k[i]);
    }
out:
    return status;
}

/* file:line of an address, and of those that it was inlined into, innermost first. */
static void print_place(const void *at)
{
    char command[1024], line[1024];
    Dl_info where;
    const char *between = "";
    if (dladdr(at, &where) == 0)
        return;
    /* The call is before the address that it returns to. */
    snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%tx", where.dli_fname,
             (const char *)at - (const char *)where.dli_fbase - 1);
    FILE *f = popen(command, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *slash = strrchr(line, '/');
        line[strcspn(line, " \n")] = '\0';
        printf("%s%s", between, slash != NULL ? slash + 1 : line);
        between = " < ";
    }
    if (f != NULL)
        pclose(f);
}

static void print_worst(const report_t *r)
{
    printf("\nmore than the least, by line:\n");
    for (int i = 0; i < r->n_worst; i++) {
        const emu_site_t *s = &r->worst[i].site;
        printf("  %-28s %s %s of %2d bytes: %8.0f requests, %5.2f times the least: ",
               r->worst[i].kernel, s->is_shared ? "shared" : "device",
               s->is_store ? "store" : "load ", s->bytes, s->requests, s->units / s->least);
        print_place(s->at);
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    static report_t r = {.user = {begin, count}};
    op_shapes_t shapes;
    if (!op_shapes_read(&shapes, argc, argv))
        return 2;
    if (argc == 1) {
        r.bounded = true;
        shapes.hidden = 1024;
        shapes.heads = 16;
        shapes.vocab = 15680; /* a sixteenth */
        shapes.tokens = shapes.length = 128;
        shapes.context = 300;
    }
    setenv("LRD_CUDA_PLUGIN", LRD_TRAFFIC_PLUGIN, 1);
    shapes.backend = "cuda";
    const lrd_status_t status = op_cases_run(&shapes, &r.user);
    if (status != LRD_OK)
        fprintf(stderr, "cuda_traffic: %s\n", lrd_error_text(status));
    print_worst(&r);
    return status != LRD_OK || r.n_beyond > 0;
}
