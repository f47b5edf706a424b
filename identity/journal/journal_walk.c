/* The files of a journal, for commands. */
#include <postern/journal.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y ? 1 : 0;
}

int journal_list(const char *dir, uint64_t **ret, size_t *ret_n, struct err *err)
{
    DIR *d = opendir(dir);
    uint64_t *numbers = NULL, number;
    size_t n = 0;

    if (d == NULL) {
        err_sys(err, "the journal's directory cannot be opened");
        return err_where(err, "%s", dir);
    }
    /* One thread. NOLINTNEXTLINE(concurrency-mt-unsafe) */
    for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (journal_file_number(str_of(e->d_name), &number)) {
            numbers = mem_must_realloc(numbers, (n + 1) * sizeof(*numbers));
            numbers[n++] = number;
        }
    }
    closedir(d);
    if (n > 0) {
        qsort(numbers, n, sizeof(*numbers), compare);
    }
    *ret = numbers;
    *ret_n = n;
    return 0;
}

int journal_file_open(const char *dir, uint64_t number, struct journal_file *ret, struct err *err)
{
    char name[32];
    mem_autofree char *path = NULL;
    os_autofd int fd = -1;
    void *data = NULL;
    struct stat st;

    journal_file_name(number, name, sizeof(name));
    path = mem_must_printf("%s/%s", dir, name);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd == -1 || fstat(fd, &st) == -1) {
        err_sys(err, "a journal file cannot be read");
        return err_where(err, "%s", path);
    }
    if (st.st_size > 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            err_sys(err, "a journal file cannot be read");
            return err_where(err, "%s", path);
        }
    }
    *ret = (struct journal_file){.number = number, .data = data, .len = (size_t)st.st_size};
    return 0;
}

void journal_file_close(struct journal_file *f)
{
    if (f->len > 0) {
        (void)munmap((void *)(uintptr_t)f->data, f->len);
    }
    *f = (struct journal_file){.data = NULL};
}
