/* role_config: options, and how a command reads the file of the agent or proxy that it is about. */
#include "roles_priv.h"

#include <dirent.h>
#include <postern/admin.h>
#include <postern/conf_rotate.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ASK_MS = 10000 };
static const char RUN_DIR[] = "/run/postern";

bool role_take_text(const struct role_text *texts, size_t n, int argc, char **argv, int *i)
{
    for (size_t t = 0; t < n && *i + 1 < argc; t++) {
        if (strcmp(argv[*i], texts[t].name) == 0) {
            *texts[t].value = argv[++*i];
            return true;
        }
    }
    return false;
}

void role_print_diag(const struct conf_diag *diag)
{
    char text[1200];

    for (size_t i = 0; i < conf_diag_count(diag); i++) {
        fprintf(stderr, "%s\n", err_text(conf_diag_get(diag, i), text, sizeof(text)));
    }
}

struct conf_agent *role_agent_config(const char *path)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_agent *conf = NULL;

    if (conf_load_agent(path, diag, &conf) == -1) {
        role_print_diag(diag);
        conf = NULL;
    }
    conf_diag_free(diag);
    return conf;
}

/* --- the admin socket ------------------------------------------------------------------------- */
static int is_admin_socket(const struct dirent *d)
{
    return str_has_suffix(str_of(d->d_name), STR_LIT("admin.sock"));
}

/* The environment's, or the only one that is there. */
static char *find_socket(void)
{
    const char *env = secure_getenv("POSTERN_ADMIN_SOCKET");
    struct dirent **list = NULL;
    char *path = NULL;
    int n;

    if (env != NULL && env[0] != '\0') {
        return mem_must_strdup(env);
    }
    n = scandir(RUN_DIR, &list, is_admin_socket, alphasort);
    if (n == 1) {
        path = mem_must_printf("%s/%s", RUN_DIR, list[0]->d_name);
    } else if (n > 1) {
        fprintf(stderr, "postern: several admin sockets; choose one with --socket:\n");
        for (int i = 0; i < n; i++) {
            fprintf(stderr, "  %s/%s\n", RUN_DIR, list[i]->d_name);
        }
    } else {
        fprintf(stderr, "postern: no admin socket in %s; name it with --socket or --config\n",
                RUN_DIR);
    }
    for (int i = 0; i < n; i++) {
        free(list[i]);
    }
    free(list);
    return path;
}

/* What a file of kind Agent, Proxy, Gateway or Rotate names. */
static char *socket_of(const char *config)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_agent *agent = NULL;
    struct conf_proxy *proxy = NULL;
    struct conf_rotate *rotate = NULL;
    const char *kind = "", *socket = NULL;
    char *path = NULL;
    bool sound = conf_check(config, diag, &kind) == 0;

    if (sound && strcmp(kind, "Proxy") == 0) {
        sound = conf_load_proxy(config, diag, &proxy) == 0;
        socket = sound ? proxy->admin.socket : NULL;
    } else if (sound && strcmp(kind, "Gateway") == 0) {
        sound = conf_load_gateway(config, diag, &proxy) == 0;
        socket = sound ? proxy->admin.socket : NULL;
    } else if (sound && strcmp(kind, "Rotate") == 0) {
        sound = conf_load_rotate(config, diag, &rotate) == 0;
        socket = sound ? rotate->admin.socket : NULL;
    } else if (sound) {
        sound = conf_load_agent(config, diag, &agent) == 0; /* says so, if it is another kind */
        socket = sound ? agent->admin.socket : NULL;
    }
    if (socket != NULL) {
        path = mem_must_strdup(socket);
    } else if (sound) {
        fprintf(stderr,
                "postern: %s names no admin socket, which is what answers this; add "
                "admin.socket\n",
                config);
    } else {
        role_print_diag(diag);
    }
    conf_agent_free(agent);
    conf_proxy_free(proxy);
    conf_rotate_free(rotate);
    conf_diag_free(diag);
    return path;
}

int role_admin_ask(const char *config, const char *socket, const char *request, struct buf *out)
{
    mem_autofree char *path = socket != NULL   ? mem_must_strdup(socket)
                              : config != NULL ? socket_of(config)
                                               : find_socket();
    struct err err = ERR_INIT;
    char text[1200];

    if (path == NULL) {
        return 2;
    }
    if (admin_ask(path, request, ASK_MS, out, &err) == -1) {
        fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
        buf_reset(out);
        return 1;
    }
    return 0;
}
