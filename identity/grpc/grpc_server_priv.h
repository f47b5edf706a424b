/* What the files of the server share: its calls. */
#ifndef POSTERN_GRPC_SERVER_PRIV_H
#define POSTERN_GRPC_SERVER_PRIV_H

#include "grpc_priv.h"

struct grpc_server {
    struct loop *loop;
    const struct grpc_method *methods;
    size_t n_methods;
    struct grpc_limits limits;
    struct grpc_server_events events;
    void *arg;
    struct grpc_conn *conns;
    size_t n_conns, n_calls;
    bool draining;
};

struct grpc_field {
    struct str name, value; /* both in the one allocation at name.p */
};

struct grpc_call {
    struct grpc_stream stream;  /* first: the connection knows calls by it */
    struct grpc_server *server; /* NULL once the server has let go */
    const struct grpc_method *method;
    void *data;
    struct grpc_field *fields; /* metadata; owned */
    size_t n_fields, fields_cap;
    size_t fields_held; /* bytes of them, charged */
    struct loop_timer deadline;
    uint64_t timeout_ms, body_bytes, content_length;
    struct str request;      /* in the splitter */
    enum grpc_status status; /* once finished */
    char *message;           /* encoded, owned; NULL: none */

    /* what the request's head has shown */
    bool saw_method, saw_path, saw_scheme, saw_authority, saw_regular, saw_content_type;
    bool is_post, content_type_ok, has_timeout, timeout_ok, has_content_length;
    bool head_done; /* now in trailers */
    bool malformed; /* RST_STREAM was submitted */
    bool too_large; /* the head */
    bool no_room;   /* for the head, in the account */
    bool open;      /* the handler knows of it and has not finished */
    bool has_request;
};

static inline struct grpc_call *grpc_call_of(struct grpc_stream *s)
{
    return (struct grpc_call *)s;
}

/* --- server.c --- */
/* RST_STREAM(PROTOCOL_ERROR). */
void grpc_call_malformed(struct grpc_call *call);
/* Ends a call that the handler does not know, or no longer. */
void grpc_call_answer(struct grpc_call *call, enum grpc_status status, const char *text);
/* What is HTTP, but not gRPC. */
void grpc_call_answer_http(struct grpc_call *call, const char *http_status);
void grpc_call_on_deadline(void *arg);

/* --- server_head.c: the request's head, field by field --- */
void grpc_server_on_begin_headers(struct grpc_conn *c, const nghttp2_frame *f);
void grpc_server_on_header(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f,
                           struct str name, struct str value);
void grpc_server_on_headers(struct grpc_conn *c, struct grpc_stream *s, const nghttp2_frame *f);

#endif
