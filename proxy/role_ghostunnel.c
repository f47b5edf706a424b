/* gateway --from-ghostunnel: prints a Gateway file that does what a command line of ghostunnel
 * did. */
#include "role_options.h"
#include "roles_priv.h"

#include <fcntl.h>
#include <limits.h>
#include <postern/ghostunnel.h>
#include <postern/spiffe.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_tell(void *arg, bool refused, const char *text)
{
    (void)arg;
    fprintf(stderr, "%s%s\n", refused ? "" : "note: ", text);
}

static enum ghostunnel_store look(void *arg, const char *path)
{
    char head[4];
    (void)arg;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t n = fd != -1 ? read(fd, head, sizeof(head)) : -1;
    if (fd != -1) {
        close(fd);
    }
    return ghostunnel_store_of((struct str){head, n > 0 ? (size_t)n : 0});
}

struct options {
    const char *line;
    struct ghostunnel_options made;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--from-ghostunnel", "LINE", struct options, line,
              "ghostunnel's arguments, as one word"),
    ROLE_TEXT("--passphrase-file", "PATH", struct options, made.passphrase_file,
              "a file in the place of --storepass"),
    ROLE_TEXT("--pin-file", "PATH", struct options, made.pin_file,
              "a file in the place of --pkcs11-pin"),
    ROLE_TEXT("--token-key", "LABEL", struct options, made.token_key,
              "the label of the key in the token"),
    ROLE_TEXT("--server-id", "ID", struct options, made.server_id,
              "with the Workload API: who answers at a client's target"),
    ROLE_TEXT("--metrics", "ADDRESS:PORT", struct options, made.metrics,
              "where metrics are asked for"),
};
static const struct role_use USE = {
    .command = "gateway",
    .uses = ROLE_USES("gateway --from-ghostunnel 'server|client FLAGS' [OPTIONS]"),
    ROLE_OPTIONS(OPTIONS),
};

int ghostunnel_main(int argc, char **argv)
{
    char directory[PATH_MAX];
    struct err err = ERR_INIT;
    struct spiffe_id id;
    struct options o = {.made.look = look};
    struct ghostunnel_options *made = &o.made;
    struct buf out = BUF_INIT(GHOSTUNNEL_OUT_MAX);
    int status;
    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    if (o.line == NULL) {
        return role_misuse(&USE, "expected --from-ghostunnel");
    }
    if (made->server_id != NULL && spiffe_id_parse(str_of(made->server_id), &id, &err) == -1) {
        return role_say("gateway", &err, 2);
    }
    if (getcwd(directory, sizeof(directory)) == NULL) {
        err_sys(&err, "the current directory");
        return role_say("gateway", &err, 1);
    }
    made->directory = directory;
    int rc = ghostunnel_convert(str_of(o.line), made, on_tell, NULL, &out, &err);
    if (rc == 0) {
        fwrite(buf_head(&out), 1, buf_len(&out), stdout);
    }
    buf_reset(&out);
    return rc == 0 ? 0 : role_say("gateway", &err, 1);
}
