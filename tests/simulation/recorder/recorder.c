/* A recorder of what a process asks of its file systems: loaded by LD_PRELOAD, it appends a record to one trace for
 * every call that changes or syncs a file under the recorded directories. holdfast.testing.power_cut reads the trace
 * and makes the directories as a power cut at any moment could have left them.
 *
 * Rules.
 * - One trace file, opened O_APPEND, one writev per record: the kernel's lock on the inode puts the records of all
 *   threads and processes in one order.
 * - A change is recorded after it was made and before the call returns; a sync is recorded before it is made and
 *   again after. So whatever the program did before it called sync stands before the sync's first record, and
 *   whatever it did because a sync had returned stands behind its second.
 * - A file is named by its inode number, found with fstat at the call: renames and duplicated descriptors need no
 *   bookkeeping. An open that creates says so.
 * - What cannot be followed (a writable shared mapping, copy_file_range, sendfile, O_TMPFILE) is recorded as such, and
 *   the reader refuses the trace unless it knows better. io_uring and raw system calls are not seen at all.
 *
 * Environment: HOLDFAST_RECORD_TRACE the trace file, HOLDFAST_RECORD_ROOTS directories joined by colons, absolute and
 * without symbolic links. Without them the library does nothing.
 *
 * cc -shared -fPIC -O2 -o recorder.so recorder.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    CREATE = 1,     /* path, inode */
    WRITE = 2,      /* inode, offset, data; flag DURABLE when opened O_DSYNC or O_SYNC */
    TRUNCATE = 3,   /* inode, offset: the new length */
    ALLOCATE = 4,   /* inode, offset: the length that the file has at least; flag KEEP_SIZE when it does not grow */
    SYNC_BEGIN = 5, /* inode; path when it is a directory */
    SYNC_END = 6,
    RENAME = 7,     /* path, second path */
    UNLINK = 8,     /* path */
    MKDIR = 9,      /* path */
    RMDIR = 10,     /* path */
    LINK = 11,      /* path of what is there, second path */
    UNFOLLOWED = 12 /* path; the second path is the call's name */
    /* 13 MARK: data, written by the test */
};

enum { DURABLE = 1, DIRECTORY = 2, KEEP_SIZE = 4 };

struct __attribute__((packed)) header {
    uint32_t magic; /* "hfrc" */
    uint32_t total; /* bytes of the record, this header included */
    uint32_t pid;
    uint32_t tid;
    uint8_t kind;
    uint8_t flags;
    uint16_t path_bytes;
    uint16_t second_bytes;
    uint16_t reserved;
    uint64_t inode;
    uint64_t offset;
};

static int trace = -1;
static char roots[16][PATH_MAX];
static size_t root_count;

#define REAL(name) ((__typeof__(&name))real(&cache_##name, #name))
#define CACHE(name) static void *cache_##name

static void *real(void **cache, const char *name) {
    if (!*cache) {
        *cache = dlsym(RTLD_NEXT, name);
        if (!*cache) abort();
    }
    return *cache;
}

CACHE(open);
CACHE(openat);
CACHE(write);
CACHE(pwrite);
CACHE(writev);
CACHE(pwritev);
CACHE(pwritev2);
CACHE(ftruncate);
CACHE(truncate);
CACHE(fallocate);
CACHE(posix_fallocate);
CACHE(fsync);
CACHE(fdatasync);
CACHE(msync);
CACHE(renameat);
CACHE(renameat2);
CACHE(unlinkat);
CACHE(mkdirat);
CACHE(linkat);
CACHE(mmap);
CACHE(copy_file_range);
CACHE(sync_file_range);

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("HOLDFAST_RECORD_TRACE"), *list = getenv("HOLDFAST_RECORD_ROOTS");
    if (!file || !list) return;
    while (*list && root_count < 16) {
        size_t length = strcspn(list, ":");
        if (length >= PATH_MAX) abort();
        memcpy(roots[root_count], list, length);
        roots[root_count++][length] = 0;
        list += length + (list[length] == ':');
    }
    int descriptor = REAL(open)(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor < 0) abort();
    /* Out of the way of programs that expect small numbers. */
    trace = fcntl(descriptor, F_DUPFD_CLOEXEC, 700);
    close(descriptor);
    if (trace < 0) abort();
}

static int recorded(const char *path) {
    for (size_t i = 0; i < root_count; i++) {
        size_t length = strlen(roots[i]);
        if (!strncmp(path, roots[i], length) && (path[length] == '/' || !path[length])) return 1;
    }
    return 0;
}

/* The absolute path of a name in a directory, without resolving symbolic links; 0 when it is not recorded. */
static int locate(int directory, const char *name, char *path) {
    if (trace < 0 || !name) return 0;
    char base[PATH_MAX] = "";
    if (name[0] != '/') {
        if (directory == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, base, sizeof base - 1);
            if (length < 0) return 0;
            base[length] = 0;
        }
    }
    char joined[2 * PATH_MAX];
    snprintf(joined, sizeof joined, "%s%s%s", base, base[0] ? "/" : "", name);
    /* Drop "//", "/./" and a slash at the end; ".." is not used by anything that is recorded. */
    char *out = path;
    for (const char *in = joined; *in && out - path < PATH_MAX - 1; in++) {
        if (in[0] == '/' && (in[1] == '/' || !in[1])) continue;
        if (in[0] == '/' && in[1] == '.' && (in[2] == '/' || !in[2])) {
            in++;
            continue;
        }
        *out++ = *in;
    }
    *out = 0;
    return recorded(path);
}

/* The path and the file behind a descriptor; 0 when it is not recorded. */
static int identify(int descriptor, char *path, struct stat *about) {
    if (trace < 0) return 0;
    int saved = errno, found = 0;
    char link[64];
    if (fstat(descriptor, about) == 0 && (S_ISREG(about->st_mode) || S_ISDIR(about->st_mode))) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(link, path, PATH_MAX - 1);
        if (length > 0) {
            path[length] = 0;
            found = recorded(path);
        }
    }
    errno = saved;
    return found;
}

static void record(enum kind kind, int flags, uint64_t inode, uint64_t offset, const char *path, const char *second,
                   const struct iovec *data, int count, size_t length) {
    int saved = errno;
    struct header header = {0x63726668u, 0, (uint32_t)getpid(), (uint32_t)syscall(SYS_gettid), (uint8_t)kind,
                            (uint8_t)flags, (uint16_t)strlen(path), (uint16_t)strlen(second), 0, inode, offset};
    struct iovec pieces[IOV_MAX];
    int used = 0;
    pieces[used++] = (struct iovec){&header, sizeof header};
    pieces[used++] = (struct iovec){(void *)path, header.path_bytes};
    pieces[used++] = (struct iovec){(void *)second, header.second_bytes};
    size_t left = length;
    for (int i = 0; i < count && left; i++) {
        size_t taken = data[i].iov_len < left ? data[i].iov_len : left;
        if (used == IOV_MAX) abort();
        pieces[used++] = (struct iovec){data[i].iov_base, taken};
        left -= taken;
    }
    size_t total = sizeof header + header.path_bytes + header.second_bytes + (length - left);
    if (total > UINT32_MAX) abort();
    header.total = (uint32_t)total;
    /* A trace with a gap proves nothing: better no program than a short record. */
    if (REAL(writev)(trace, pieces, used) != (ssize_t)total) abort();
    errno = saved;
}

static void record_path(enum kind kind, const char *path, const char *second) {
    record(kind, 0, 0, 0, path, second, NULL, 0, 0);
}

/* Opening. Whether a file was made is found out by trying without O_CREAT first. */

static int open_recorded(int directory, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (!locate(directory, name, path)) return REAL(openat)(directory, name, flags, mode);
    if ((flags & O_TMPFILE) == O_TMPFILE) record_path(UNFOLLOWED, path, "O_TMPFILE");
    int created = 0, descriptor;
    if (!(flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {
        descriptor = REAL(openat)(directory, name, flags, mode);
    } else if (flags & O_EXCL) {
        descriptor = REAL(openat)(directory, name, flags, mode);
        created = descriptor >= 0;
    } else {
        for (;;) {
            descriptor = REAL(openat)(directory, name, flags & ~O_CREAT, mode);
            if (descriptor >= 0 || errno != ENOENT) break;
            descriptor = REAL(openat)(directory, name, flags | O_EXCL, mode);
            created = descriptor >= 0;
            if (descriptor >= 0 || errno != EEXIST) break;
        }
    }
    if (descriptor >= 0) {
        struct stat about;
        if (fstat(descriptor, &about)) abort();
        if (created) record(CREATE, 0, about.st_ino, 0, path, "", NULL, 0, 0);
        else if (flags & O_TRUNC && S_ISREG(about.st_mode))
            record(TRUNCATE, 0, about.st_ino, 0, path, "", NULL, 0, 0);
    }
    return descriptor;
}

#define MODE(flags)                                         \
    mode_t mode = 0;                                        \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                                       \
        va_start(rest, flags);                              \
        mode = va_arg(rest, mode_t);                        \
        va_end(rest);                                       \
    }

int open(const char *name, int flags, ...) { MODE(flags) return open_recorded(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_recorded(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE(flags) return open_recorded(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE(flags) return open_recorded(at, name, flags, mode); }
int creat(const char *name, mode_t mode) {
    return open_recorded(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *name, mode_t mode) { return creat(name, mode); }
int __open_2(const char *name, int flags) { return open_recorded(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return open_recorded(AT_FDCWD, name, flags, 0); }
int __openat_2(int at, const char *name, int flags) { return open_recorded(at, name, flags, 0); }
int __openat64_2(int at, const char *name, int flags) { return open_recorded(at, name, flags, 0); }

/* Writing. */

static int durable(int descriptor) {
    int saved = errno, flags = fcntl(descriptor, F_GETFL);
    errno = saved;
    return flags >= 0 && (flags & O_DSYNC) ? DURABLE : 0;
}

static void record_write(int descriptor, const struct iovec *data, int count, off_t offset, ssize_t length, int flags) {
    char path[PATH_MAX];
    struct stat about;
    if (length <= 0 || !identify(descriptor, path, &about)) return;
    if (offset < 0) {
        /* The descriptor's own position, already moved on; with O_APPEND that is the end as this write left it. */
        off_t position = lseek(descriptor, 0, SEEK_CUR);
        if (position < length) abort();
        offset = position - length;
    }
    record(WRITE, flags | durable(descriptor), about.st_ino, (uint64_t)offset, path, "", data, count, (size_t)length);
}

ssize_t write(int descriptor, const void *data, size_t length) {
    ssize_t done = REAL(write)(descriptor, data, length);
    struct iovec piece = {(void *)data, length};
    if (trace >= 0) record_write(descriptor, &piece, 1, -1, done, 0);
    return done;
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    ssize_t done = REAL(pwrite)(descriptor, data, length, offset);
    struct iovec piece = {(void *)data, length};
    if (trace >= 0) record_write(descriptor, &piece, 1, offset, done, 0);
    return done;
}
ssize_t pwrite64(int descriptor, const void *data, size_t length, off_t offset) {
    return pwrite(descriptor, data, length, offset);
}

ssize_t writev(int descriptor, const struct iovec *data, int count) {
    ssize_t done = REAL(writev)(descriptor, data, count);
    if (trace >= 0) record_write(descriptor, data, count, -1, done, 0);
    return done;
}

ssize_t pwritev(int descriptor, const struct iovec *data, int count, off_t offset) {
    ssize_t done = REAL(pwritev)(descriptor, data, count, offset);
    if (trace >= 0) record_write(descriptor, data, count, offset, done, 0);
    return done;
}
ssize_t pwritev64(int descriptor, const struct iovec *data, int count, off_t offset) {
    return pwritev(descriptor, data, count, offset);
}

ssize_t pwritev2(int descriptor, const struct iovec *data, int count, off_t offset, int flags) {
    ssize_t done = REAL(pwritev2)(descriptor, data, count, offset, flags);
    if (trace >= 0)
        record_write(descriptor, data, count, offset, done, flags & (RWF_DSYNC | RWF_SYNC) ? DURABLE : 0);
    return done;
}
ssize_t pwritev64v2(int descriptor, const struct iovec *data, int count, off_t offset, int flags) {
    return pwritev2(descriptor, data, count, offset, flags);
}

int ftruncate(int descriptor, off_t length) {
    int result = REAL(ftruncate)(descriptor, length);
    char path[PATH_MAX];
    struct stat about;
    if (!result && identify(descriptor, path, &about))
        record(TRUNCATE, 0, about.st_ino, (uint64_t)length, path, "", NULL, 0, 0);
    return result;
}
int ftruncate64(int descriptor, off_t length) { return ftruncate(descriptor, length); }

int truncate(const char *name, off_t length) {
    int result = REAL(truncate)(name, length);
    char path[PATH_MAX];
    struct stat about;
    if (!result && locate(AT_FDCWD, name, path) && !stat(path, &about))
        record(TRUNCATE, 0, about.st_ino, (uint64_t)length, path, "", NULL, 0, 0);
    return result;
}
int truncate64(const char *name, off_t length) { return truncate(name, length); }

static void record_allocate(int descriptor, int mode, off_t offset, off_t length) {
    char path[PATH_MAX];
    struct stat about;
    if (!identify(descriptor, path, &about)) return;
    if (mode & ~FALLOC_FL_KEEP_SIZE) record_path(UNFOLLOWED, path, "fallocate with a mode");
    record(ALLOCATE, mode & FALLOC_FL_KEEP_SIZE ? KEEP_SIZE : 0, about.st_ino, (uint64_t)(offset + length), path, "",
           NULL, 0, 0);
}

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    int result = REAL(fallocate)(descriptor, mode, offset, length);
    if (!result) record_allocate(descriptor, mode, offset, length);
    return result;
}
int fallocate64(int descriptor, int mode, off_t offset, off_t length) {
    return fallocate(descriptor, mode, offset, length);
}

int posix_fallocate(int descriptor, off_t offset, off_t length) {
    int result = REAL(posix_fallocate)(descriptor, offset, length);
    if (!result) record_allocate(descriptor, 0, offset, length);
    return result;
}
int posix_fallocate64(int descriptor, off_t offset, off_t length) { return posix_fallocate(descriptor, offset, length); }

/* Syncing. */

static int sync_recorded(int descriptor, int (*call)(int)) {
    char path[PATH_MAX];
    struct stat about;
    if (!identify(descriptor, path, &about)) return call(descriptor);
    int flags = S_ISDIR(about.st_mode) ? DIRECTORY : 0;
    record(SYNC_BEGIN, flags, about.st_ino, 0, path, "", NULL, 0, 0);
    int result = call(descriptor);
    if (!result) record(SYNC_END, flags, about.st_ino, 0, path, "", NULL, 0, 0);
    return result;
}

int fsync(int descriptor) { return sync_recorded(descriptor, REAL(fsync)); }
int fdatasync(int descriptor) { return sync_recorded(descriptor, REAL(fdatasync)); }

/* Neither promises anything that a power cut respects, so neither counts; writes through mappings are refused above. */
int msync(void *address, size_t length, int flags) { return REAL(msync)(address, length, flags); }
int sync_file_range(int descriptor, off_t offset, off_t length, unsigned flags) {
    return REAL(sync_file_range)(descriptor, offset, length, flags);
}

/* Names. */

int renameat2(int from, const char *name, int to, const char *target, unsigned flags) {
    char path[PATH_MAX], second[PATH_MAX];
    int here = locate(from, name, path), there = locate(to, target, second);
    int result = flags ? REAL(renameat2)(from, name, to, target, flags) : REAL(renameat)(from, name, to, target);
    if (!result && (here || there)) {
        if (here != there || (flags & ~RENAME_NOREPLACE)) record_path(UNFOLLOWED, path, "renameat2");
        record_path(RENAME, path, second);
    }
    return result;
}
int rename(const char *name, const char *target) { return renameat2(AT_FDCWD, name, AT_FDCWD, target, 0); }
int renameat(int from, const char *name, int to, const char *target) { return renameat2(from, name, to, target, 0); }

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    int here = locate(at, name, path);
    int result = REAL(unlinkat)(at, name, flags);
    if (!result && here) record_path(flags & AT_REMOVEDIR ? RMDIR : UNLINK, path, "");
    return result;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int at, const char *name, mode_t mode) {
    char path[PATH_MAX];
    int here = locate(at, name, path);
    int result = REAL(mkdirat)(at, name, mode);
    if (!result && here) record_path(MKDIR, path, "");
    return result;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int linkat(int from, const char *name, int to, const char *target, int flags) {
    char path[PATH_MAX], second[PATH_MAX];
    int here = locate(from, name, path), there = locate(to, target, second);
    int result = REAL(linkat)(from, name, to, target, flags);
    if (!result && (here || there)) record_path(LINK, path, second);
    return result;
}
int link(const char *name, const char *target) { return linkat(AT_FDCWD, name, AT_FDCWD, target, 0); }

/* What cannot be followed. */

void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    void *result = REAL(mmap)(address, length, protection, flags, descriptor, offset);
    char path[PATH_MAX];
    struct stat about;
    if (result != MAP_FAILED && descriptor >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) &&
        identify(descriptor, path, &about))
        record_path(UNFOLLOWED, path, "mmap");
    return result;
}
void *mmap64(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    return mmap(address, length, protection, flags, descriptor, offset);
}

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t length, unsigned flags) {
    char path[PATH_MAX];
    struct stat about;
    if (identify(out, path, &about)) record_path(UNFOLLOWED, path, "copy_file_range");
    return REAL(copy_file_range)(in, from, out, to, length, flags);
}
