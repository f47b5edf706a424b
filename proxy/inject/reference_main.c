/*
 * inject-reference: writes the annotations' page of the reference, or with --check says whether
 * what stands there is what it would write.
 *
 *   inject-reference docs/reference/annotations.md
 *   inject-reference --check docs/reference/annotations.md
 */
#include <postern/inject.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    bool check = argc == 3 && strcmp(argv[1], "--check") == 0;
    struct buf want = BUF_INIT(1024 * 1024);
    struct err err = ERR_INIT;
    mem_autofree char *have = NULL;
    size_t len = 0;
    char text[1200];
    int rc = 0;
    if (argc != 2 && !check) {
        fprintf(stderr, "usage: inject-reference [--check] FILE\n");
        return 2;
    }
    const char *path = argv[argc - 1];
    if (!inject_reference(&want)) {
        rc = 1;
    } else if (!check) {
        rc = os_write_file_atomic(path, buf_head(&want), buf_len(&want), 0644, &err);
    } else {
        rc = os_read_file(path, 1024 * 1024, false, &have, &len, &err);
        if (rc == 0 && !str_eq((struct str){have, len}, buf_str(&want))) {
            fprintf(stderr, "%s: not what the table says; run inject-reference %s\n", path, path);
            rc = 1;
        }
    }
    if (rc == -1) {
        fprintf(stderr, "inject-reference: %s\n", err_text(&err, text, sizeof(text)));
    }
    buf_reset(&want);
    return rc == 0 ? 0 : 1;
}
