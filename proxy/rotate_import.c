/* rotate --from-spiffe-helper: prints a Rotate file that does what spiffe-helper did. */
#include "role_options.h"
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

struct options {
    const char *path, *mode;
    struct spiffe_helper_options made;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--from-spiffe-helper", "FILE", struct options, path,
              "spiffe-helper's configuration"),
    ROLE_TEXT("--executable", "PATH", struct options, made.executable,
              "what the process of pid_file_name runs"),
    ROLE_TEXT("--spiffe-id", "ID", struct options, made.spiffe_id,
              "which identity, in the place of hint"),
    ROLE_TEXT("--key-mode", "MODE", struct options, mode,
              "of keys and tokens, such as 0440, in the place of the file's"),
};
static const struct role_use USE = {
    .command = "rotate",
    .uses = ROLE_USES(ROTATE_IMPORT_USE),
    ROLE_OPTIONS(OPTIONS),
};

/* 0400 to 0640: what a Rotate file's `mode` takes. */
static bool take_mode(const char *text, unsigned *ret)
{
    unsigned mode = 0;
    if (strlen(text) != 4 || strspn(text, "01234567") != 4) {
        return false;
    }
    for (; *text != '\0'; text++) {
        mode = mode * 8 + (unsigned)(*text - '0');
    }
    *ret = mode;
    return (mode & 0400) != 0 && (mode & ~0640U) == 0;
}

int rotate_import(int argc, char **argv)
{
    struct options o = {.path = NULL};
    char directory[PATH_MAX];
    struct err err = ERR_INIT;
    struct spiffe_id id;
    int status;
    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    if (o.path == NULL || (o.made.executable != NULL && o.made.executable[0] != '/')) {
        return role_misuse(&USE, "expected a file, and of an executable its whole path");
    }
    if (o.mode != NULL && !take_mode(o.mode, &o.made.key_mode)) {
        return role_misuse(&USE, "expected a mode such as 0400 or 0440");
    }
    if (o.made.spiffe_id != NULL && spiffe_id_parse(str_of(o.made.spiffe_id), &id, &err) == -1) {
        return role_say("rotate", &err, 2);
    }
    if (getcwd(directory, sizeof(directory)) == NULL) {
        err_sys(&err, "the current directory");
        return role_say("rotate", &err, 1);
    }
    o.made.name = o.path;
    o.made.directory = directory;
    return convert(o.path, &o.made, &err) == 0 ? 0 : role_say("rotate", &err, 1);
}
