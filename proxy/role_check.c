/* check: says what is wrong with configuration files, and runs nothing. */
#include "roles_priv.h"

#include <postern/conf.h>
#include <stdio.h>

/* 0 or 2; all that was found goes to standard error. */
static int check_file(const char *path)
{
    struct conf_diag *diag = conf_diag_new();
    struct buf said = BUF_INIT(1024 * 1024);
    const char *kind = NULL;
    int rc = 0;
    if (conf_check(path, diag, &kind) == 0) {
        printf("%s: ok (%s, level %d)\n", path, kind, CONF_LEVEL);
    } else {
        (void)conf_diag_print(diag, &said);
        (void)fwrite(buf_head(&said), 1, buf_len(&said), stderr);
        rc = 2;
    }
    buf_reset(&said);
    conf_diag_free(diag);
    return rc;
}

int check_main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: postern check FILE...\n");
        return 2;
    }
    int rc = 0;
    for (int i = 1; i < argc; i++) {
        rc |= check_file(argv[i]);
    }
    return rc;
}
