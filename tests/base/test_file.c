/* Files and folders: all or nothing, whatever happens in between. */
#include "support/test_support.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *fresh_folder(const char *name)
{
    const char *path = lrd_test_temporary(name);
    assert_ok(lrd_folder_make(path));
    return path;
}

/* A path in a folder; it lives until the program ends. */
static char *paths[256];
static int n_paths;

static const char *in(const char *folder, const char *name)
{
    assert_true(n_paths < (int)(sizeof paths / sizeof paths[0]));
    paths[n_paths] = lrd_path_join(folder, name);
    assert_non_null(paths[n_paths]);
    return paths[n_paths++];
}

static int free_paths(void **state)
{
    while (n_paths > 0)
        lrd_free(paths[--n_paths]);
    return 0;
}

/* The folder holds exactly these names, given in one text with spaces between them. */
static void assert_names(const char *folder, const char *expected)
{
    lrd_names_t names;
    lrd_buf_t text = {0};
    assert_ok(lrd_folder_list(folder, &names));
    assert_ok(lrd_buf_add_text(&text, ""));
    for (size_t i = 0; i < names.n; i++)
        assert_ok(lrd_buf_printf(&text, "%s%s", i > 0 ? " " : "", names.name[i]));
    assert_string_equal(text.data, expected);
    lrd_buf_release(&text);
    lrd_names_free(&names);
    assert_null(names.name);
}

static void assert_content(const char *path, const char *expected)
{
    lrd_buf_t buf = {0};
    assert_ok(lrd_file_read(path, 1 << 20, &buf));
    assert_int_equal(buf.size, strlen(expected));
    assert_memory_equal(buf.data, expected, buf.size);
    lrd_buf_release(&buf);
}

static void put(const char *path, const char *text)
{
    assert_ok(lrd_file_write(path, text, strlen(text)));
}

static void test_paths(void **state)
{
    static const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"},
        {"a", "/b", "/b"}, {"/", "b", "/b"},   {"a", "", "a/"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path = lrd_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(path, cases[i][2]);
        lrd_free(path);
    }
    assert_string_equal(lrd_path_base("a/b/c"), "c");
    assert_string_equal(lrd_path_base("c"), "c");
    assert_string_equal(lrd_path_base("a/"), "");
}

static void assert_resolves(const char *path, const char *want)
{
    char *resolved = NULL;
    assert_ok(lrd_path_resolve(path, &resolved));
    assert_string_equal(resolved, want);
    lrd_free(resolved);
}

static void test_resolved_paths(void **state)
{
    char *root = NULL, *here = NULL;
    const char *folder = fresh_folder("resolve");
    assert_ok(lrd_path_resolve(folder, &root));
    assert_ok(lrd_folder_make(in(folder, "a/b")));
    assert_int_equal(symlink("a/b", in(folder, "link")), 0);
    put(in(folder, "file"), "x");
    assert_resolves(in(folder, "a/b"), in(root, "a/b"));
    assert_resolves(in(folder, "a/../a//b/./"), in(root, "a/b"));
    assert_resolves(in(folder, "link"), in(root, "a/b"));
    assert_resolves(in(folder, "link/.."), in(root, "a"));
    assert_resolves(in(folder, "link/new"), in(root, "a/b/new"));
    assert_resolves(in(folder, "new//"), in(root, "new"));
    assert_resolves(in(folder, "new/..c/d../e/"), in(root, "new/..c/d../e"));
    assert_resolves("/", "/");
    assert_resolves("//", "/");
    assert_resolves("/no-such-folder", "/no-such-folder");
    assert_ok(lrd_path_resolve(".", &here));
    assert_resolves("", here);
    assert_resolves("no-such/folder", in(here, "no-such/folder"));
    char *none = NULL;
    assert_fails(lrd_path_resolve(in(folder, "new/../a"), &none), LRD_ERR_IO, "not there");
    assert_fails(lrd_path_resolve(in(folder, "new/.."), &none), LRD_ERR_IO, "not there");
    assert_fails(lrd_path_resolve(in(folder, "file/a"), &none), LRD_ERR_IO, "Not a directory");
    assert_null(none);
    lrd_free(root);
    lrd_free(here);

    assert_true(lrd_path_is_inside("/a/b", "/a/b") && lrd_path_is_inside("/a/b/c", "/a/b"));
    assert_true(lrd_path_is_inside("/a", "/") && lrd_path_is_inside("/", "/"));
    assert_false(lrd_path_is_inside("/a/bc", "/a/b") || lrd_path_is_inside("/a", "/a/b"));
}

static void test_write_and_read(void **state)
{
    const char *folder = fresh_folder("write");
    const char *path = in(folder, "a");
    put(path, "first");
    assert_content(path, "first");
    put(path, "");
    assert_content(path, "");
    char *large = lrd_malloc(3000000);
    assert_non_null(large);
    memset(large, 'x', 3000000);
    assert_ok(lrd_file_write(path, large, 3000000));
    lrd_buf_t buf = {0};
    assert_ok(lrd_buf_add_text(&buf, "before"));
    assert_ok(lrd_file_read(path, 3000000, &buf)); /* appends */
    assert_int_equal(buf.size, 3000006);
    assert_memory_equal(buf.data, "beforexxx", 9);
    assert_memory_equal(buf.data + 6, large, 3000000);
    assert_fails(lrd_file_read(path, 2999999, &buf), LRD_ERR_IO,
                 "has 3000000 bytes, more than the 2999999 that are read");
    assert_int_equal(buf.size, 3000006);
    assert_names(folder, "a");
    lrd_buf_release(&buf);
    lrd_free(large);
}

static void test_a_reader_never_sees_half(void **state)
{
    const char *folder = fresh_folder("half");
    const char *path = in(folder, "a");
    put(path, "old");
    lrd_writer_t *w = NULL;
    assert_ok(lrd_writer_open(path, &w));
    assert_ok(lrd_writer_add(w, "ne", 2));
    assert_content(path, "old");
    assert_ok(lrd_writer_add(w, "w", 1));
    assert_content(path, "old");
    lrd_map_t map;
    assert_ok(lrd_file_map(path, &map)); /* what was open before stays as it was */
    assert_ok(lrd_writer_commit(&w));
    assert_null(w);
    assert_content(path, "new");
    assert_memory_equal(map.data, "old", 3);
    lrd_file_unmap(&map);
    assert_names(folder, "a");
}

static void test_abandoned_writers_leave_nothing(void **state)
{
    const char *folder = fresh_folder("abandon");
    const char *path = in(folder, "a");
    lrd_writer_t *w = NULL;
    assert_ok(lrd_writer_open(path, &w));
    assert_ok(lrd_writer_add(w, "text", 4));
    lrd_writer_abandon(w);
    assert_names(folder, "");
    put(path, "old");
    assert_ok(lrd_writer_open(path, &w));
    lrd_writer_abandon(w);
    lrd_writer_abandon(NULL);
    assert_content(path, "old");
    assert_names(folder, "a");
}

/* The device is full in the middle of a file: a limit on file sizes does
 * the same in a child process. */
static int write_beyond_a_limit(const char *path)
{
    static char block[4096];
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 10000;
    setrlimit(RLIMIT_FSIZE, &limit);
    lrd_writer_t *w = NULL;
    lrd_status_t status = lrd_writer_open(path, &w);
    for (int i = 0; i < 10 && status == LRD_OK; i++)
        status = lrd_writer_add(w, block, sizeof block);
    const int right =
        status == LRD_ERR_IO && lrd_test_contains(lrd_error_text(status), "File too large");
    lrd_writer_abandon(w);
    return right ? 0 : 1;
}

static void test_a_full_device_leaves_the_old_file(void **state)
{
    const char *folder = fresh_folder("full");
    const char *path = in(folder, "a");
    int result = 0;
    put(path, "old");
    const pid_t child = fork();
    if (child == 0)
        _exit(write_beyond_a_limit(path));
    assert_true(child > 0 && waitpid(child, &result, 0) == child);
    assert_int_equal(result, 0);
    assert_content(path, "old");
    assert_names(folder, "a");
}

static void test_refused_targets(void **state)
{
    const char *folder = fresh_folder("refused");
    lrd_writer_t *w = NULL;
    assert_fails(lrd_file_write(in(folder, "absent/a"), "x", 1), LRD_ERR_IO,
                 "absent/a.partial"); /* the message names what could not be made, and why */
    put(in(folder, "file"), "x");
    assert_fails(lrd_writer_open(in(folder, "file/a"), &w), LRD_ERR_IO, "Not a directory");
    assert_ok(lrd_folder_make(in(folder, "sub/sub")));
    assert_fails(lrd_file_write(in(folder, "sub"), "x", 1), LRD_ERR_IO, "Is a directory");
    assert_null(w);
    assert_names(folder, "file sub");
    assert_names(in(folder, "sub"), "sub");
}

/* Root may write anywhere: as root the test takes another user's rights for the call. */
static void test_a_read_only_target(void **state)
{
    const char *folder = fresh_folder("read-only");
    put(in(folder, "a"), "old");
    const bool root = geteuid() == 0;
    assert_int_equal(chmod(lrd_test_temporary(""), 0755), 0);
    assert_int_equal(chmod(folder, 0555), 0);
    if (root)
        assert_int_equal(seteuid(65534), 0);
    lrd_writer_t *w = NULL;
    const lrd_status_t file = lrd_writer_open(in(folder, "a"), &w);
    char *text = lrd_strdup(lrd_error_text(file));
    lrd_error_clear();
    const lrd_status_t made = lrd_folder_make(in(folder, "b"));
    lrd_error_clear();
    const lrd_status_t removed = lrd_folder_remove(in(folder, "a"));
    lrd_error_clear();
    if (root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(file, LRD_ERR_IO);
    assert_true(lrd_test_contains(text, "read-only/a.partial") &&
                lrd_test_contains(text, "Permission denied"));
    assert_int_equal(made, LRD_ERR_IO);
    assert_int_equal(removed, LRD_ERR_IO);
    assert_content(in(folder, "a"), "old");
    assert_names(folder, "a");
    lrd_free(text);
}

static void test_read_refuses(void **state)
{
    const char *folder = fresh_folder("read");
    lrd_buf_t buf = {0};
    lrd_map_t map = {(const uint8_t *)"", 77};
    assert_fails(lrd_file_read(in(folder, "a"), 10, &buf), LRD_ERR_IO, "No such file");
    assert_fails(lrd_file_read(folder, 10, &buf), LRD_ERR_IO, "is a folder, expected a file");
    assert_fails(lrd_file_map(folder, &map), LRD_ERR_IO, "is a folder, expected a file");
    assert_int_equal(mkfifo(in(folder, "pipe"), 0600), 0);
    assert_fails(lrd_file_read(in(folder, "pipe"), 10, &buf), LRD_ERR_IO,
                 "is not a regular file, expected a file"); /* and does not wait for a writer */
    assert_fails(lrd_file_map("/dev/zero", &map), LRD_ERR_IO, "is not a regular file");
    assert_int_equal(map.size, 77);
    assert_null(buf.data);
}

static void test_map(void **state)
{
    const char *path = in(fresh_folder("map"), "a");
    lrd_map_t map;
    put(path, "");
    assert_ok(lrd_file_map(path, &map));
    assert_true(map.data == NULL && map.size == 0);
    lrd_file_unmap(&map);
    put(path, "mapped");
    assert_ok(lrd_file_map(path, &map));
    assert_int_equal(map.size, 6);
    assert_memory_equal(map.data, "mapped", 6);
    lrd_file_unmap(&map);
    assert_true(map.data == NULL && map.size == 0);
    lrd_file_unmap(&map);
}

/* What was read leaves the memory of the process, and comes back. */
static void test_forget(void **state)
{
    enum { BYTES = 64 << 20, PIECE = 1000000 };
    const char *path = in(fresh_folder("forget"), "a");
    lrd_map_t map;
    size_t sum = 0, n = 0;
    put(path, "seven");
    assert_int_equal(truncate(path, BYTES), 0);
    assert_ok(lrd_file_map(path, &map));
    const size_t before = lrd_mem_peak_bytes();
    for (size_t at = 0; at < BYTES; at += n) {
        n = BYTES - at < PIECE ? BYTES - at : PIECE;
        for (size_t i = 0; i < n; i += 512)
            sum += map.data[at + i];
        lrd_file_forget(&map, at, n);
    }
    assert_int_equal(sum, 's');
    assert_true(lrd_mem_peak_bytes() - before < BYTES / 8);
    assert_memory_equal(map.data, "seven", 5);
    lrd_file_forget(&map, 1, BYTES); /* beyond the end: nothing happens */
    lrd_file_unmap(&map);
    lrd_file_forget(&map, 0, 0);
}

static void test_free_bytes(void **state)
{
    uint64_t bytes = 0;
    assert_ok(lrd_folder_free_bytes(fresh_folder("free"), &bytes));
    assert_true(bytes > 0);
    assert_fails(lrd_folder_free_bytes("/no-such-folder", &bytes), LRD_ERR_IO, "No such file");
}

static void test_exists(void **state)
{
    const char *folder = fresh_folder("exists");
    const char *file = in(folder, "file"), *link = in(folder, "link"),
               *broken = in(folder, "broken");
    put(file, "x");
    assert_int_equal(symlink(file, link), 0);
    assert_int_equal(symlink("nowhere", broken), 0);
    assert_true(lrd_file_exists(file) && lrd_file_exists(link));
    assert_false(lrd_file_exists(folder) || lrd_file_exists(broken) ||
                 lrd_file_exists("/dev/null"));
    assert_true(lrd_folder_exists(folder));
    assert_false(lrd_folder_exists(file) || lrd_folder_exists(broken));
}

static void test_flush_and_publish(void **state)
{
    const char *folder = fresh_folder("publish");
    put(in(folder, "a.tmp"), "new");
    put(in(folder, "a"), "old");
    assert_ok(lrd_file_flush(in(folder, "a.tmp")));
    assert_ok(lrd_file_publish(in(folder, "a.tmp"), in(folder, "a")));
    assert_names(folder, "a");
    assert_content(in(folder, "a"), "new");
    assert_fails(lrd_file_flush(in(folder, "b")), LRD_ERR_IO, "No such file");
    assert_fails(lrd_file_publish(in(folder, "b"), in(folder, "a")), LRD_ERR_IO, "No such file");
    assert_content(in(folder, "a"), "new");
}

static void test_make_folders(void **state)
{
    const char *folder = fresh_folder("make");
    assert_ok(lrd_folder_make(in(folder, "a/b//c/")));
    assert_ok(lrd_folder_make(in(folder, "a/b/c")));
    assert_ok(lrd_folder_make("/"));
    assert_ok(lrd_folder_make(""));
    assert_true(lrd_folder_exists(in(folder, "a/b/c")));
    put(in(folder, "file"), "x");
    assert_fails(lrd_folder_make(in(folder, "file")), LRD_ERR_IO, "cannot make the folder");
    assert_fails(lrd_folder_make(in(folder, "file/x")), LRD_ERR_IO, "cannot make the folder");
    assert_content(in(folder, "file"), "x");
}

static void test_lists_are_sorted(void **state)
{
    const char *folder = fresh_folder("list");
    static const char *const names[] = {"b", "a", "h.10", "h.2", "Z", ".hidden", "\xc3\xa9", "sub"};
    for (int i = 0; i < 7; i++)
        put(in(folder, names[i]), "");
    assert_ok(lrd_folder_make(in(folder, names[7])));
    assert_names(folder, ".hidden Z a b h.10 h.2 sub \xc3\xa9");
    assert_names(in(folder, "sub"), "");
    lrd_names_t none = {NULL, 0};
    assert_fails(lrd_folder_list(in(folder, "absent"), &none), LRD_ERR_IO, "cannot list");
    assert_fails(lrd_folder_list(in(folder, "a"), &none), LRD_ERR_IO, "Not a directory");
}

static void test_remove_does_not_follow_links(void **state)
{
    const char *folder = fresh_folder("remove");
    assert_ok(lrd_folder_make(in(folder, "kept")));
    put(in(folder, "kept/file"), "x");
    assert_ok(lrd_folder_make(in(folder, "gone/sub")));
    put(in(folder, "gone/sub/file"), "x");
    assert_int_equal(symlink("../kept", in(folder, "gone/link")), 0);
    assert_int_equal(symlink("nowhere", in(folder, "gone/broken")), 0);
    assert_ok(lrd_folder_remove(in(folder, "gone")));
    assert_names(folder, "kept");
    assert_content(in(folder, "kept/file"), "x");
    assert_ok(lrd_folder_remove(in(folder, "gone"))); /* absent is well */
}

static void test_remove_many(void **state)
{
    const char *folder = fresh_folder("many");
    const char *full = in(folder, "full");
    assert_ok(lrd_folder_make(full));
    for (int i = 0; i < 700; i++) {
        char *path =
            lrd_asprintf("%s/a rather long name, so that several reads list it %d", full, i);
        assert_non_null(path);
        put(path, "");
        lrd_free(path);
    }
    assert_ok(lrd_folder_remove(full));
    put(in(folder, "file"), "x");
    assert_ok(lrd_folder_remove(in(folder, "file")));
    assert_names(folder, "");
    assert_fails(lrd_folder_remove("/proc/self/fd"), LRD_ERR_IO, "cannot remove /proc/self/fd: ");
}

static void test_discard(void **state)
{
    const char *folder = fresh_folder("discard");
    assert_ok(lrd_folder_make(in(folder, "checkpoint-1/sub")));
    put(in(folder, "checkpoint-1/sub/file"), "x");
    assert_ok(lrd_folder_make(in(folder, "checkpoint-1.partial/left/by/a/killed/run")));
    assert_ok(lrd_folder_discard(in(folder, "checkpoint-1")));
    assert_names(folder, "");
    assert_fails(lrd_folder_discard(in(folder, "checkpoint-1")), LRD_ERR_IO, "cannot rename");
}

static void test_new_folder(void **state)
{
    const char *folder = fresh_folder("new");
    const char *path = in(folder, "checkpoint-1");
    char *partial = NULL;
    assert_ok(lrd_folder_make(in(folder, "checkpoint-1.partial/left/by/a/killed/run")));
    assert_ok(lrd_folder_begin(path, &partial));
    assert_string_equal(partial, in(folder, "checkpoint-1.partial"));
    assert_names(partial, "");
    put(in(partial, "a"), "1");
    assert_ok(lrd_folder_make(in(partial, "sub")));
    put(in(partial, "sub/b"), "2");
    assert_names(folder, "checkpoint-1.partial");
    assert_ok(lrd_folder_commit(partial, path));
    assert_names(folder, "checkpoint-1");
    assert_content(in(path, "a"), "1");
    assert_content(in(path, "sub/b"), "2");
    lrd_free(partial);
}

static void test_replaced_folder(void **state)
{
    const char *folder = fresh_folder("replace");
    const char *path = in(folder, "best");
    for (int i = 0; i < 2; i++) {
        char *partial = NULL;
        assert_ok(lrd_folder_begin(path, &partial));
        put(in(partial, i == 0 ? "old" : "new"), "x");
        if (i == 1)
            assert_names(path, "old"); /* until the commit */
        assert_ok(lrd_folder_commit(partial, path));
        lrd_free(partial);
        assert_names(path, i == 0 ? "old" : "new");
        assert_names(folder, "best");
    }
}

static void test_commit_refuses(void **state)
{
    const char *folder = fresh_folder("commit");
    char *partial = NULL;
    put(in(folder, "file"), "x");
    assert_ok(lrd_folder_begin(in(folder, "file"), &partial));
    assert_fails(lrd_folder_commit(partial, in(folder, "file")), LRD_ERR_IO, "Not a directory");
    assert_content(in(folder, "file"), "x");
    lrd_free(partial);
    assert_fails(lrd_folder_commit(in(folder, "absent"), in(folder, "b")), LRD_ERR_IO,
                 "No such file");
    assert_names(folder, "file file.partial");
}

static void test_merged_folder(void **state)
{
    const char *folder = fresh_folder("merge");
    const char *path = in(folder, "out");
    char *partial = NULL;
    assert_ok(lrd_folder_make(path));
    put(in(path, "a"), "old");
    put(in(path, "kept"), "k");
    assert_ok(lrd_folder_begin(in(path, "result"), &partial));
    put(in(partial, "a"), "new");
    assert_ok(lrd_folder_make(in(partial, "sub")));
    put(in(partial, "sub/b"), "2");
    assert_ok(lrd_folder_merge(partial, path));
    assert_names(path, "a kept sub");
    assert_content(in(path, "a"), "new");
    assert_content(in(path, "kept"), "k");
    assert_content(in(path, "sub/b"), "2");
    assert_fails(lrd_folder_merge(partial, path), LRD_ERR_IO, "No such file");
    lrd_free(partial);
    assert_ok(lrd_folder_begin(in(folder, "b"), &partial));
    put(in(partial, "a"), "x");
    assert_fails(lrd_folder_merge(partial, in(path, "a")), LRD_ERR_IO, "Not a directory");
    assert_names(partial, "a");
    lrd_folder_abandon(partial);
    lrd_folder_abandon(partial);
    lrd_folder_abandon(NULL);
    assert_names(folder, "out");
    lrd_free(partial);
}

/* FIPS 180-2's example, and one longer than the pieces in which files are read. */
static void test_hash_of_files(void **state)
{
    const char *folder = fresh_folder("hash");
    char hex[LRD_SHA256_HEX];
    put(in(folder, "abc"), "abc");
    assert_ok(lrd_sha256_file(in(folder, "abc"), hex));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char *a = lrd_malloc(1000000);
    assert_non_null(a);
    memset(a, 'a', 1000000);
    assert_ok(lrd_file_write(in(folder, "million"), a, 1000000));
    assert_ok(lrd_sha256_file(in(folder, "million"), hex));
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    put(in(folder, "abc"), "");
    assert_ok(lrd_sha256_file(in(folder, "abc"), hex));
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_fails(lrd_sha256_file(in(folder, "absent"), hex), LRD_ERR_IO, "No such file");
    lrd_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_resolved_paths),
        cmocka_unit_test(test_write_and_read),
        cmocka_unit_test(test_a_reader_never_sees_half),
        cmocka_unit_test(test_abandoned_writers_leave_nothing),
        cmocka_unit_test(test_a_full_device_leaves_the_old_file),
        cmocka_unit_test(test_refused_targets),
        cmocka_unit_test(test_a_read_only_target),
        cmocka_unit_test(test_read_refuses),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_free_bytes),
        cmocka_unit_test(test_exists),
        cmocka_unit_test(test_flush_and_publish),
        cmocka_unit_test(test_make_folders),
        cmocka_unit_test(test_lists_are_sorted),
        cmocka_unit_test(test_remove_does_not_follow_links),
        cmocka_unit_test(test_remove_many),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_new_folder),
        cmocka_unit_test(test_replaced_folder),
        cmocka_unit_test(test_commit_refuses),
        cmocka_unit_test(test_merged_folder),
        cmocka_unit_test(test_hash_of_files),
    };
    return cmocka_run_group_tests(tests, NULL, free_paths);
}
