/*
 * grpc.reflection.v1 (and v1alpha, the same on the wire): what is served here, from the descriptors
 * that protoc made of identity/proto/reflect at build. Nothing of it depends on the caller.
 */
#include "service_priv.h"

#include <postern/proto.h>
#include <stdio.h>

enum {
    /* ServerReflectionRequest */
    ASK_FILE = 3,
    ASK_SYMBOL = 4,
    ASK_EXTENSION = 5,
    ASK_EXTENSION_NUMBERS = 6,
    ASK_SERVICES = 7,
    /* ServerReflectionResponse */
    SAY_REQUEST = 2,
    SAY_FILES = 4,
    SAY_SERVICES = 6,
    SAY_ERROR = 7,
    /* descriptor.proto */
    SET_FILE = 1,
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    ANY_NAME = 1,
    SERVICE_METHOD = 2,
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,

    ANSWER_MAX = 256 * 1024,
};

static struct str field_bytes(struct str message, uint32_t field)
{
    struct service_wire w = service_wire_of(message);
    while (service_wire_next(&w)) {
        if (w.field == field && w.is_bytes) {
            return w.bytes;
        }
    }
    return STR_NONE;
}

/* --- looking into descriptors ------------------------------------------------------------------
 */

/* Takes `name` (and the dot behind it) off the front of *rest. */
static bool strip(struct str *rest, struct str name)
{
    if (!str_has_prefix(*rest, name)) {
        return false;
    }
    struct str left = {rest->p + name.n, rest->n - name.n};
    if (left.n > 0 && name.n > 0) {
        if (left.p[0] != '.' || left.n == 1) {
            return false;
        }
        left = (struct str){left.p + 1, left.n - 1};
    }
    *rest = left;
    return true;
}

/* Whether a service, message or enum has the rest of the name: itself, a method, something nested.
 * One level of nesting is all that our descriptors have. */
static bool names_this(struct str thing, struct str symbol, uint32_t inner)
{
    if (!strip(&symbol, field_bytes(thing, ANY_NAME))) {
        return false;
    }
    if (symbol.n == 0) {
        return true;
    }
    struct service_wire w = service_wire_of(thing);
    while (service_wire_next(&w)) {
        bool look = w.is_bytes &&
                    (w.field == inner || (inner == MESSAGE_NESTED && w.field == MESSAGE_ENUM));
        if (look && str_eq(field_bytes(w.bytes, ANY_NAME), symbol)) {
            return true;
        }
    }
    return false;
}

static bool file_has_symbol(struct str file, struct str symbol)
{
    if (!strip(&symbol, field_bytes(file, FILE_PACKAGE)) || symbol.n == 0) {
        return false;
    }
    struct service_wire w = service_wire_of(file);
    while (service_wire_next(&w)) {
        if (w.is_bytes &&
            (w.field == FILE_MESSAGE || w.field == FILE_ENUM || w.field == FILE_SERVICE) &&
            names_this(w.bytes, symbol,
                       w.field == FILE_SERVICE ? SERVICE_METHOD : MESSAGE_NESTED)) {
            return true;
        }
    }
    return false;
}

static bool file_has_name(struct str file, struct str name)
{
    return str_eq(field_bytes(file, FILE_NAME), name);
}

static struct str find_file(bool (*has)(struct str file, struct str what), struct str what)
{
    struct service_wire w = service_wire_of(proto_reflection_set());
    while (service_wire_next(&w)) {
        if (w.field == SET_FILE && w.is_bytes && has(w.bytes, what)) {
            return w.bytes;
        }
    }
    return STR_NONE;
}

/* --- answers ---------------------------------------------------------------------------------- */

static bool put_error(struct buf *out, enum grpc_status code, const char *text)
{
    uint8_t head[] = {0x08, (uint8_t)code};
    struct buf error = BUF_INIT(ANSWER_MAX);
    bool ok = buf_append(&error, head, sizeof(head)) && service_wire_put(&error, 2, str_of(text)) &&
              service_wire_put(out, SAY_ERROR, buf_str(&error));
    buf_reset(&error);
    return ok;
}

static bool put_file(struct buf *out, struct str file)
{
    if (file.n == 0) {
        return put_error(out, GRPC_NOT_FOUND, "no such file or symbol here");
    }
    struct buf files = BUF_INIT(ANSWER_MAX);
    bool ok =
        service_wire_put(&files, 1, file) && service_wire_put(out, SAY_FILES, buf_str(&files));
    buf_reset(&files);
    return ok;
}

static bool put_services(struct buf *out)
{
    struct buf list = BUF_INIT(ANSWER_MAX);
    bool ok = true;
    for (size_t i = 0; ok && service_names[i] != NULL; i++) {
        struct buf one = BUF_INIT(ANSWER_MAX);
        ok = service_wire_put(&one, 1, str_of(service_names[i])) &&
             service_wire_put(&list, 1, buf_str(&one));
        buf_reset(&one);
    }
    ok = ok && service_wire_put(out, SAY_SERVICES, buf_str(&list));
    buf_reset(&list);
    return ok;
}

/* False: the request is none. A pure function of the bytes. */
bool service_reflect(struct str request, struct buf *out)
{
    struct service_wire w = service_wire_of(request);
    uint32_t ask = 0;
    struct str what = STR_NONE;
    while (service_wire_next(&w)) {
        if (w.field >= ASK_FILE && w.field <= ASK_SERVICES && w.is_bytes) {
            ask = w.field; /* of a oneof the last one counts */
            what = w.bytes;
        }
    }
    if (w.bad || !service_wire_put(out, SAY_REQUEST, request)) {
        return false;
    }
    switch (ask) {
    case ASK_FILE:
        return put_file(out, find_file(file_has_name, what));
    case ASK_SYMBOL:
        return put_file(out, find_file(file_has_symbol, what));
    case ASK_SERVICES:
        return put_services(out);
    case ASK_EXTENSION:
    case ASK_EXTENSION_NUMBERS:
        return put_error(out, GRPC_NOT_FOUND, "there are no extensions here");
    default:
        return put_error(out, GRPC_INVALID_ARGUMENT, "the request asks for nothing");
    }
}

static void end(struct grpc_call *call, enum grpc_status status, const char *text)
{
    service_caller_discharge(grpc_call_conn_context(call));
    service_finish(call, status, text);
}

void service_reflect_request(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    struct buf out = BUF_INIT(ANSWER_MAX);
    if (!service_reflect(message, &out)) {
        end(call, GRPC_INVALID_ARGUMENT, "the request is not a ServerReflectionRequest");
    } else if (grpc_call_send(call, buf_head(&out), buf_len(&out)) != GRPC_SENT) {
        end(call, GRPC_RESOURCE_EXHAUSTED, "too many answers wait to be read");
    }
    buf_reset(&out);
}

void service_reflect_end(struct grpc_call *call, void *arg)
{
    (void)arg;
    end(call, GRPC_OK, NULL);
}
