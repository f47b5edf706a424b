/* For a person who asks: files and connection by one's own rights, in one's own process. */
#include <postern/kubelet.h>

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What was read of the files; keys and tokens among it. */
struct files {
    char *ca, *cert, *key, *token;
    size_t ca_len, cert_len, key_len, token_len;
};

static void forget(char *secret, size_t len)
{
    if (secret != NULL) {
        mem_wipe(secret, len);
        free(secret);
    }
}

static void files_free(struct files *f)
{
    free(f->ca);
    free(f->cert);
    forget(f->key, f->key_len);
    forget(f->token, f->token_len);
}

static int read_one(const char *path, size_t max, char **ret, size_t *ret_len, struct err *err)
{
    return path == NULL ? 0 : os_read_file(path, max, false, ret, ret_len, err);
}

static int read_files(const struct kubelet_source *s, struct files *f, struct err *err)
{
    if (read_one(s->ca_file, KUBELET_PEM_MAX, &f->ca, &f->ca_len, err) == -1 ||
        read_one(s->cert_file, KUBELET_PEM_MAX, &f->cert, &f->cert_len, err) == -1 ||
        read_one(s->key_file, KUBELET_PEM_MAX, &f->key, &f->key_len, err) == -1 ||
        read_one(s->token_file, KUBELET_TOKEN_MAX, &f->token, &f->token_len, err) == -1) {
        return -1;
    }
    while (f->token_len > 0 && strchr("\r\n ", f->token[f->token_len - 1]) != NULL) {
        f->token_len--;
    }
    return 0;
}

static int ask(const struct kubelet_source *s, const struct files *f, int fd, struct buf *ret_body,
               struct err *err)
{
    char host[64], name[64];
    struct kubelet_request request = {
        .socket = fd,
        .also = -1,
        .host = host,
        .server_name = s->server_name != NULL ? s->server_name : name,
        .insecure = s->insecure,
        .plaintext = s->plaintext,
        .ca = {f->ca, f->ca_len},
        .cert = {f->cert, f->cert_len},
        .key = {f->key, f->key_len},
        .token = {f->token, f->token_len},
        .timeout_ms = s->timeout_ms,
    };

    kubelet_host_text(&s->address, true, host, sizeof(host));
    kubelet_host_text(&s->address, false, name, sizeof(name));
    return kubelet_exchange(&request, ret_body, err);
}

int kubelet_fetch(const struct kubelet_source *source, struct kubelet_pods **ret, struct err *err)
{
    struct buf body = BUF_INIT(KUBELET_BODY_MAX);
    struct files files = {0};
    os_autofd int fd = -1;
    int r;

    if (kubelet_prepare(err) == -1) {
        return -1;
    }
    fd = socket(source->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1) {
        return err_sys(err, "no socket");
    }
    r = read_files(source, &files, err);
    if (r == 0 &&
        connect(fd, (const struct sockaddr *)&source->address, source->address_len) == -1 &&
        errno != EINPROGRESS) {
        r = err_sys(err, "no connection to the kubelet");
    }
    if (r == 0) {
        r = ask(source, &files, fd, &body, err);
    }
    if (r == 0) {
        r = kubelet_pods_parse((const char *)buf_head(&body), buf_len(&body), ret, err);
    }
    files_free(&files);
    buf_reset(&body);
    return r;
}
