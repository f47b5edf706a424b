/* A gateway's Unix sockets: made once by the main thread, shared by the workers, and their files
 * removed at the end. */
#include "proxy_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* Of the process of before, or of the service manager. */
static struct service_socket *inherited(const struct proxy *p, const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t i;
    memcpy(un.sun_path, path, strnlen(path, sizeof(un.sun_path) - 1));
    return service_sockets_find(&p->inherited, 0, (const struct sockaddr *)&un, sizeof(un), &i);
}

/* As if it had been handed to us: the workers deal them out among themselves. */
static int hand_on(struct proxy *p, int fd, struct err *err)
{
    struct service_sockets one = {
        .items = (struct service_socket *)mem_must_calloc(1, sizeof(struct service_socket)),
        .n = 1};
    if (service_socket_check(fd, &one.items[0], err) == -1) {
        one.items[0].fd = fd; /* closed with it */
        service_sockets_deinit(&one);
        return -1;
    }
    service_sockets_join(&p->inherited, &one);
    return 0;
}

static int open_one(struct proxy *p, const struct conf_listener *l, struct net_unix_file *file,
                    struct err *err)
{
    const struct net_unix_spec spec = {.path = l->bind.path,
                                       .mode = l->socket.mode,
                                       .owner = l->socket.owner,
                                       .group = l->socket.group};
    const struct service_socket *s = inherited(p, l->bind.path);
    int fd = -1;
    if (s != NULL) {
        if (!s->activated) {
            net_unix_file_of(l->bind.path, file); /* the process of before leaves it to us */
        }
        return 0;
    }
    return net_listen_unix(&spec, &fd, file, err) == -1 ? -1 : hand_on(p, fd, err);
}

int proxy_unix_start(struct proxy *p, struct err *err)
{
    const struct conf_proxy *conf = p->files->conf;
    p->unix_files =
        (struct net_unix_file *)mem_must_calloc(conf->n_listeners + 1, sizeof(*p->unix_files));
    for (size_t i = 0; i < conf->n_listeners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        if (l->bind.kind == CONF_BIND_UNIX &&
            open_one(p, l, &p->unix_files[p->n_unix_files++], err) == -1) {
            return err_prefix(err, "listener %s", l->name);
        }
    }
    return 0;
}

void proxy_unix_stop(struct proxy *p, bool remove)
{
    for (size_t i = 0; i < p->n_unix_files; i++) {
        net_unix_file_deinit(&p->unix_files[i], remove);
    }
    free(p->unix_files);
    p->unix_files = NULL;
    p->n_unix_files = 0;
}
