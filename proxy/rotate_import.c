/* rotate --from-spiffe-helper: prints a Rotate file that does what spiffe-helper did. */
#include "roles_priv.h"
#include "rotate_priv.h"

#include <limits.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/spiffe.h>
#include <postern/spiffe_helper.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_tell(void *arg, bool refused, const char *text)
{
    (void)arg;
    fprintf(stderr, "%s%s\n", refused ? "" : "note: ", text);
}

/* What is printed has to be taken, by this binary and now. */
static int check(const struct buf *made)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    int rc = conf_parse_rotate("(made)", (const char *)buf_head(made), buf_len(made), diag, &conf);
    role_print_diag(diag);
    conf_diag_free(diag);
    conf_rotate_free(conf);
    return rc;
}

static int convert(const char *path, struct spiffe_helper_options *options, struct err *err)
{
    mem_autofree char *text = NULL;
    size_t len = 0;
    struct buf made = BUF_INIT(SPIFFE_HELPER_OUT_MAX);
    if (os_read_file(path, SPIFFE_HELPER_FILE_MAX, false, &text, &len, err) == -1) {
        return -1;
    }
    int rc = spiffe_helper_convert(text, len, options, on_tell, NULL, &made, err);
    if (rc == 0 && check(&made) == -1) {
        rc = err_set(err, ERR_CONFIG, "what was made of it is not taken");
    }
    if (rc == 0) {
        fwrite(buf_head(&made), 1, buf_len(&made), stdout);
    }
    buf_reset(&made);
    return rc;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: postern rotate --from-spiffe-helper FILE [--executable PATH] [--spiffe-id ID]\n"
            "  --executable PATH  what the process of pid_file_name runs\n"
            "  --spiffe-id ID     which identity, in the place of hint\n");
    return 2;
}

int rotate_import(int argc, char **argv)
{
    struct spiffe_helper_options options = {.name = NULL};
    const char *path = NULL;
    char directory[PATH_MAX];
    struct err err = ERR_INIT;
    struct spiffe_id id;
    const struct role_text texts[] = {{"--from-spiffe-helper", &path},
                                      {"--executable", &options.executable},
                                      {"--spiffe-id", &options.spiffe_id}};
    for (int i = 1; i < argc; i++) {
        if (!role_take_text(texts, 3, argc, argv, &i)) {
            return usage();
        }
    }
    if (path == NULL || (options.executable != NULL && options.executable[0] != '/') ||
        (options.spiffe_id != NULL &&
         spiffe_id_parse(str_of(options.spiffe_id), &id, &err) == -1)) {
        return err.code != ERR_NONE ? role_say("rotate", &err, 2) : usage();
    }
    if (getcwd(directory, sizeof(directory)) == NULL) {
        err_sys(&err, "the current directory");
        return role_say("rotate", &err, 1);
    }
    options.name = path;
    options.directory = directory;
    return convert(path, &options, &err) == 0 ? 0 : role_say("rotate", &err, 1);
}
