/* base/file.h -- files and folders.
 *
 * Writing is all or nothing: a file or folder appears under its name only when it is complete and
 * flushed to the device. Errors name the path and the system's reason.
 */
#ifndef LRD_BASE_FILE_H
#define LRD_BASE_FILE_H

#include "base/buf.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "folder/name", or name alone when it is absolute or folder is empty. lrd_free it;
 * NULL: out of memory. */
char *lrd_path_join(const char *folder, const char *name);

/* The part after the last '/': points into path. */
const char *lrd_path_base(const char *path);

/* The absolute path without links, "." and ".."; the part that does not exist yet is kept as it
 * stands. LRD_ERR_IO: a ".." in that part, or something on the way is not a folder. */
lrd_status_t lrd_path_resolve(const char *path, char **resolved_out);

/* Of two resolved paths: path is the folder, or lies in it. */
bool lrd_path_is_inside(const char *path, const char *folder);

bool lrd_file_exists(const char *path);   /* a regular file, through links */
bool lrd_folder_exists(const char *path); /* a folder, through links */

/* Appends the file's content to buf. LRD_ERR_IO: cannot be read, is not a regular file, or is
 * larger than max_bytes. */
lrd_status_t lrd_file_read(const char *path, size_t max_bytes, lrd_buf_t *buf);

/* A whole file, mapped read-only and shared. An empty file maps to size 0 with data == NULL. */
typedef struct lrd_map {
    const uint8_t *data;
    size_t size;
} lrd_map_t;
lrd_status_t lrd_file_map(const char *path, lrd_map_t *map_out);
void lrd_file_unmap(lrd_map_t *map); /* {0} is fine */

/* These bytes will be touched soon: unless they are in memory already, to go by a few samples, the system
 * reads them ahead. */
void lrd_file_expect(const lrd_map_t *map, size_t begin, size_t bytes);

/* These bytes will not be touched soon: they leave the memory of this process. Touched after all,
 * they are read again. */
void lrd_file_forget(const lrd_map_t *map, size_t begin, size_t bytes);

/* Writes a file under a temporary name beside its own;
 * commit flushes and renames it, abandon removes it.
 *
 *   lrd_writer_t *w = NULL;
 *   LRD_TRY(lrd_writer_open(path, &w));
 *   LRD_TRY(lrd_writer_add(w, data, bytes));
 *   LRD_TRY(lrd_writer_commit(&w));
 * out:
 *   lrd_writer_abandon(w);      // NULL after a commit: a no-op
 */
typedef struct lrd_writer lrd_writer_t;
lrd_status_t lrd_writer_open(const char *path, lrd_writer_t **writer_out);
lrd_status_t lrd_writer_add(lrd_writer_t *writer, const void *data, size_t bytes);
/* Frees the writer and sets it to NULL, also on failure. */
lrd_status_t lrd_writer_commit(lrd_writer_t **writer);
void lrd_writer_abandon(lrd_writer_t *writer);

/* The above in one call. */
lrd_status_t lrd_file_write(const char *path, const void *data, size_t bytes);

/* Flushes a file that something else has written (HDF5) to the device. */
lrd_status_t lrd_file_flush(const char *path);

/* Gives a complete file that something else has written its final name: flushes it, renames it
 * (replacing a file of that name) and flushes the folder. */
lrd_status_t lrd_file_publish(const char *temporary, const char *path);

/* mkdir -p. */
lrd_status_t lrd_folder_make(const char *path);

/* Removes a folder and all in it; symbolic links are removed, not followed. Absent: LRD_OK.
 * Allocates nothing, so that one can tidy up where memory ran out. */
lrd_status_t lrd_folder_remove(const char *path);

/* Bytes that the file system of an existing folder has left for this user; UINT64_MAX: it does not
 * say. */
lrd_status_t lrd_folder_free_bytes(const char *path, uint64_t *bytes_out);

/* Removes a complete folder that others look for by its name: it is renamed to <path>.partial first,
 * so that nobody finds half of it. */
lrd_status_t lrd_folder_discard(const char *path);

/* A folder under construction: begin makes an empty folder beside `path`
 * (its name ends in ".partial"; one left by a killed run is removed) and returns its name,
 * which the caller frees; commit flushes it and everything in it, and renames it to `path`,
 * replacing a folder of that name; merge flushes it likewise, and moves what is in it into the
 * existing folder `path`, replacing files of the same names; abandon removes it. What needs memory
 * or writes comes before the first rename. */
lrd_status_t lrd_folder_begin(const char *path, char **partial_out);
lrd_status_t lrd_folder_commit(const char *partial, const char *path);
lrd_status_t lrd_folder_merge(const char *partial, const char *path);
void lrd_folder_abandon(const char *partial); /* NULL, and a name that is gone, are fine */

/* Names in a folder, sorted bytewise, without "." and "..". lrd_names_free frees them. */
typedef struct lrd_names {
    char **name;
    size_t n;
} lrd_names_t;
lrd_status_t lrd_folder_list(const char *path, lrd_names_t *names_out);
void lrd_names_free(lrd_names_t *names);

#endif /* LRD_BASE_FILE_H */
