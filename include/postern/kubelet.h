/*
 * kubelet: what a node's kubelet says about its pods.
 *
 * Three layers, each usable alone: a parser of the kubelet's /pods (bytes -> pods and containers),
 * a parser of its HTTP answer, and one exchange over TLS. postern-kubelet is the process that puts
 * them together for an agent; `postern agent attest` does so for a person (kubelet_fetch).
 *
 * What is kept is what selectors ask for and no more. A pod that is beyond a bound or not in
 * Kubernetes' own forms is left out and counted: whoever may create pods must not be able to take
 * the list away from all others. A text that is no list of pods at all is an error.
 *
 * Thread: any; nothing here is shared. Uses jansson, libssl.
 */
#ifndef POSTERN_KUBELET_H
#define POSTERN_KUBELET_H

#include <postern/buf.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    KUBELET_BODY_MAX = 16 << 20,    /* bytes of JSON */
    KUBELET_DEPTH_MAX = 64,         /* of nesting in it */
    KUBELET_PODS_MAX = 1024,        /* of a node */
    KUBELET_CONTAINERS_MAX = 64,    /* of a pod, init and ephemeral ones included */
    KUBELET_LABELS_MAX = 64,        /* of a pod */
    KUBELET_LABELS_TEXT_MAX = 8192, /* of a pod: "key=value\n" each */
    KUBELET_NAME_MAX = 253,         /* namespace, pod, service account, node */
    KUBELET_UID_MAX = 36,           /* with dashes; a static pod's has 32 digits and none */
    KUBELET_CONTAINER_ID_MAX = 64,  /* hexadecimal */
    KUBELET_CONTAINER_NAME_MAX = 63,
    KUBELET_IMAGE_MAX = 1023,
    KUBELET_DIGEST_MAX = 135,  /* sha512: and 128 digits */
    KUBELET_HEAD_MAX = 16384,  /* bytes of an answer's head */
    KUBELET_TOKEN_MAX = 16384, /* bytes of a bearer token */
    KUBELET_PEM_MAX = 1 << 20, /* bytes of a file of certificates, or of a key */
};

/* --- pods ------------------------------------------------------------------------------------- */
struct kubelet_container {
    char *id;       /* owned, as all texts here; 64 hexadecimal digits, without "containerd://" */
    char *name;     /* as the pod calls it */
    char *image;    /* as the container runtime names it; NULL: not told */
    char *image_id; /* likewise: "repository@sha256:...", or "sha256:..." of a local one */
    char *digest;   /* "sha256:...": the registry's, or a local one's configuration's; or NULL */
};
struct kubelet_label {
    char *key, *value;
};
struct kubelet_pod {
    char *uid; /* lower case; 8-4-4-4-12, or 32 digits: what the pod's cgroup is named after */
    char *namespace, *name;
    char *service_account, *node; /* NULL: not told */
    struct kubelet_label *labels;
    size_t n_labels;
    struct kubelet_container *containers; /* those that have an id already */
    size_t n_containers;
};
struct kubelet_pods {
    struct kubelet_pod *items; /* in the kubelet's order; no uid twice */
    size_t n;
    size_t n_left_out;
    struct err left_out; /* the first of them, and why */
};

/* ERR_PROTOCOL or ERR_LIMIT if it is no list of pods. */
int kubelet_pods_parse(const char *json, size_t len, struct kubelet_pods **ret, struct err *err);
struct kubelet_pods *kubelet_pods_free(struct kubelet_pods *pods);
/* NULL: none. */
const struct kubelet_pod *kubelet_pods_find(const struct kubelet_pods *pods, struct str uid);
const struct kubelet_container *kubelet_pod_find(const struct kubelet_pod *pod, struct str id);
/* The digest inside an image id ("repository@sha256:...", "sha256:..."); empty: there is none. */
struct str kubelet_image_digest(struct str image_id);

/* --- an answer -------------------------------------------------------------------------------- */
enum kubelet_feed { KUBELET_FEED_MORE, KUBELET_FEED_DONE, KUBELET_FEED_BAD };
/* HTTP/1.1 as a server has to speak it and no looser: CRLF, one length (Content-Length or chunked),
 * nothing behind the end. Embedded; init, then feed, then deinit. */
struct kubelet_response {
    unsigned status;
    struct buf body; /* owned */
    int state;       /* the rest is response.c's own */
    bool has_length, chunked;
    uint64_t left; /* of the body, or of the chunk */
    size_t head;   /* bytes of head, chunk lines and trailers so far */
    struct buf line;
};
void kubelet_response_init(struct kubelet_response *r, size_t max_body);
void kubelet_response_deinit(struct kubelet_response *r);
/* The same verdict however the bytes are cut. BAD: err says why; nothing more may be fed. */
enum kubelet_feed kubelet_response_feed(struct kubelet_response *r, const void *bytes, size_t n,
                                        struct err *err);

/* --- one exchange ----------------------------------------------------------------------------- */
/* What one request needs, as bytes; all lent. */
struct kubelet_request {
    int socket;               /* connecting or connected, non-blocking */
    int also;                 /* ends the exchange as soon as it can be read; -1: none */
    const char *host;         /* of the Host header, "10.0.0.1:10250" */
    const char *server_name;  /* DNS name or address that the certificate must have */
    bool insecure;            /* TLS, but whoever answers is believed */
    bool plaintext;           /* no TLS at all */
    struct str ca, cert, key; /* PEM; ca is a must unless insecure or plaintext */
    struct str token;         /* empty: none */
    uint32_t timeout_ms;      /* for all of it */
};
/* To be called once, before files can no longer be opened. */
int kubelet_prepare(struct err *err);
/* GET /pods. The body is appended to ret_body, which is empty. ERR_DENIED: 401 or 403. */
int kubelet_exchange(const struct kubelet_request *request, struct buf *ret_body, struct err *err);

/* --- for a person ----------------------------------------------------------------------------- */
struct kubelet_source {
    struct sockaddr_storage address;
    socklen_t address_len;
    const char *ca_file, *cert_file, *key_file, *token_file; /* NULL: none */
    const char *server_name;                                 /* NULL: the address */
    bool insecure, plaintext;
    uint32_t timeout_ms;
};
/* "10.0.0.1:10250", "[fe80::1]:10250"; size at least 64. */
void kubelet_host_text(const struct sockaddr_storage *address, bool with_port, char *ret_text,
                       size_t size);
/* Opens the files, connects, asks and parses: blocks for at most timeout_ms. */
int kubelet_fetch(const struct kubelet_source *source, struct kubelet_pods **ret, struct err *err);

#endif
