/* gateway --from-ghostunnel: prints a Gateway file that does what a command line of ghostunnel
 * did. */
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

static int usage(void)
{
    fprintf(stderr,
            "usage: postern gateway --from-ghostunnel 'server|client FLAGS' [OPTIONS]\n"
            "  --passphrase-file PATH  a file in the place of --storepass\n"
            "  --pin-file PATH         a file in the place of --pkcs11-pin\n"
            "  --token-key LABEL       the label of the key in the token\n"
            "  --server-id ID          with the Workload API: who answers at a client's target\n"
            "  --metrics ADDRESS:PORT  where metrics are asked for\n");
    return 2;
}

int ghostunnel_main(int argc, char **argv)
{
    char directory[PATH_MAX];
    const char *line = NULL;
    struct err err = ERR_INIT;
    struct spiffe_id id;
    struct ghostunnel_options options = {.look = look};
    struct buf made = BUF_INIT(GHOSTUNNEL_OUT_MAX);
    const struct role_text texts[] = {
        {"--from-ghostunnel", &line},        {"--passphrase-file", &options.passphrase_file},
        {"--pin-file", &options.pin_file},   {"--token-key", &options.token_key},
        {"--server-id", &options.server_id}, {"--metrics", &options.metrics}};
    for (int i = 1; i < argc; i++) {
        if (!role_take_text(texts, sizeof(texts) / sizeof(texts[0]), argc, argv, &i)) {
            return usage();
        }
    }
    if (line == NULL) {
        return usage();
    }
    if (options.server_id != NULL && spiffe_id_parse(str_of(options.server_id), &id, &err) == -1) {
        return role_say("gateway", &err, 2);
    }
    if (getcwd(directory, sizeof(directory)) == NULL) {
        err_sys(&err, "the current directory");
        return role_say("gateway", &err, 1);
    }
    options.directory = directory;
    int rc = ghostunnel_convert(str_of(line), &options, on_tell, NULL, &made, &err);
    if (rc == 0) {
        fwrite(buf_head(&made), 1, buf_len(&made), stdout);
    }
    buf_reset(&made);
    return rc == 0 ? 0 : role_say("gateway", &err, 1);
}
