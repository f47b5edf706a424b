/*
 * conf_after: what a Rotate file says about the time after a change: `after` and `verify` of an
 * output. Part of conf.h's results, in a header of its own for the processes that need nothing
 * else. Pure data and pure functions; thread: any. Texts are owned by the configuration.
 */
#ifndef POSTERN_CONF_AFTER_H
#define POSTERN_CONF_AFTER_H

#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* --- where a question goes -------------------------------------------------------------------- */
enum conf_url_scheme {
    CONF_URL_TLS,
    CONF_URL_TLS_POSTGRES,
    CONF_URL_TLS_MYSQL,
    CONF_URL_HTTP,
    CONF_URL_HTTPS,
};
enum { CONF_HOST_MAX = 253, CONF_UNIX_MAX = 107, CONF_REQUEST_PATH_MAX = 1023 };

/* "tls://host:port", "tls://unix:/path", "http://host[:port]/path", "http://unix:/path:/path". */
struct conf_url {
    enum conf_url_scheme scheme;
    char host[CONF_HOST_MAX + 1];         /* a DNS name or an address without brackets; "": unix */
    uint16_t port;                        /* 0: unix */
    char unix_path[CONF_UNIX_MAX + 1];    /* absolute; "": host and port */
    char path[CONF_REQUEST_PATH_MAX + 1]; /* of http and https; begins with a slash; else "" */
};
/* NULL: *ret is filled. Else why it is none: a constant for messages. */
const char *conf_url_parse(struct str text, struct conf_url *ret);
bool conf_url_is_http(const struct conf_url *url);

/* --- actions ---------------------------------------------------------------------------------- */
struct conf_words {
    char **items;
    size_t n;
};

enum conf_after_kind {
    CONF_AFTER_SIGNAL,
    CONF_AFTER_COMMAND,
    CONF_AFTER_SYSTEMD,
    CONF_AFTER_HTTP,
};
const char *conf_after_kind_name(enum conf_after_kind kind);

enum conf_systemd_verb {
    CONF_SYSTEMD_RELOAD,
    CONF_SYSTEMD_RESTART,
    CONF_SYSTEMD_TRY_RELOAD_OR_RESTART,
    CONF_SYSTEMD_RELOAD_OR_RESTART,
    CONF_N_SYSTEMD_VERBS,
};
/* As systemctl and the file have it: "try-reload-or-restart". */
const char *conf_systemd_verb_name(enum conf_systemd_verb verb);

enum conf_if_failed { CONF_IF_FAILED_STOP, CONF_IF_FAILED_CONTINUE };

struct conf_status_range {
    uint16_t first, last;
};
enum { CONF_EXPECT_MAX = 16 };

struct conf_after {
    enum conf_after_kind kind;
    struct {
        bool present;
        char *pid_file; /* NULL: see pid, child */
        uint32_t pid;   /* 0: none */
        bool child;
        uint32_t word;       /* of the list of signals */
        int signo;           /* the same, as the kernel numbers it */
        char *executable;    /* NULL with child only */
        uint32_t any_mounts; /* its path may be one of another mount namespace */
    } signal;
    struct {
        struct conf_words argv;
        char *user, *group; /* as written; NULL: who started us */
        bool has_user;      /* uid, gid and home are set */
        uid_t uid;
        gid_t gid;
        char home[256];
    } command;
    struct {
        bool present;
        char *units[CONF_N_SYSTEMD_VERBS]; /* exactly one is not NULL */
        enum conf_systemd_verb verb;
        char *systemctl;
    } systemd;
    struct {
        bool present;
        uint32_t method; /* see conf_http_method_name */
        char *url_text;
        struct conf_url url;
        struct conf_words headers; /* "Name: value" */
        char *body;                /* NULL: none */
        struct conf_words expect_words;
        struct conf_status_range expect[CONF_EXPECT_MAX];
        size_t n_expect;
        char *ca_file; /* https */
    } http;
    uint32_t timeout_ms, attempts, backoff_ms;
    enum conf_if_failed if_failed;
};
const char *conf_http_method_name(uint32_t method);
/* What the action is about, for people: a pid file, a program, a unit, a URL. Lent. */
const char *conf_after_target(const struct conf_after *after);

struct conf_verify {
    bool present;
    char *url_text;
    struct conf_url url;
    char *server_name; /* NULL: the URL's host */
    uint32_t timeout_ms;
};

#endif
