/*
 * conf-reference: writes the reference of every kind of file into a directory, or with --check says
 * whether what stands there is what it would write.
 *
 *   conf-reference docs/reference
 *   conf-reference --check docs/reference
 */
#include <postern/conf.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>

static int fail(const struct err *err)
{
    char text[1200];
    fprintf(stderr, "conf-reference: %s\n", err_text(err, text, sizeof(text)));
    return 1;
}

/* docs/reference/proxy.md for Proxy, policy-test.md for PolicyTest. */
static char *file_of(const char *dir, const char *kind)
{
    char name[64];
    size_t n = 0;
    for (size_t i = 0; kind[i] != '\0' && n + 3 < sizeof(name); i++) {
        bool capital = kind[i] >= 'A' && kind[i] <= 'Z';
        if (capital && i > 0) {
            name[n++] = '-';
        }
        name[n++] = capital ? (char)(kind[i] - 'A' + 'a') : kind[i];
    }
    name[n] = '\0';
    return mem_must_printf("%s/%s.md", dir, name);
}

static int write_or_check(const char *dir, const char *kind, bool check)
{
    struct buf want = BUF_INIT(1024 * 1024);
    struct err err = ERR_INIT;
    mem_autofree char *path = file_of(dir, kind);
    mem_autofree char *have = NULL;
    size_t have_len = 0;
    int rc = 0;
    if (!conf_reference(kind, &want)) {
        fprintf(stderr, "conf-reference: no reference of %s\n", kind);
        rc = 1;
    } else if (!check) {
        rc = os_write_file_atomic(path, buf_head(&want), buf_len(&want), 0644, &err) == 0
                 ? 0
                 : fail(&err);
    } else if (os_read_file(path, 1024 * 1024, false, &have, &have_len, &err) != 0) {
        rc = fail(&err);
    } else if (!str_eq((struct str){have, have_len}, buf_str(&want))) {
        fprintf(stderr, "%s: not what the tables say; run conf-reference %s\n", path, dir);
        rc = 1;
    }
    buf_reset(&want);
    return rc;
}

int main(int argc, char **argv)
{
    bool check = argc == 3 && strcmp(argv[1], "--check") == 0;
    if (argc != 2 && !check) {
        fprintf(stderr, "usage: conf-reference [--check] DIRECTORY\n");
        return 2;
    }
    int rc = 0;
    for (const char *const *kind = conf_kinds(); *kind != NULL; kind++) {
        rc |= write_or_check(argv[argc - 1], *kind, check);
    }
    return rc;
}
