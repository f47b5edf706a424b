/*
 * Claims as google.protobuf.Struct: Struct{1 map<string,Value> fields}; Value{1 null, 2 double,
 * 3 string, 4 bool, 5 Struct, 6 ListValue}; ListValue{1 repeated Value}; a map's entry is
 * {1 key, 2 value}.
 *
 * By hand, since nothing recursive goes through protobuf-c here. Written from the end to the
 * beginning, so that the length of what stands inside is known when its head is written.
 */
#include "jwt_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2 };
/* The worst text a byte of JSON can become is well below this (an empty list in a list). */
enum { GROWTH = 16, SPARE = 64 };

struct back {
    uint8_t *data;
    size_t at; /* everything from here on is written */
    bool full;
};

static void put(struct back *b, const void *p, size_t n)
{
    if (n > b->at) {
        b->full = true;
        return;
    }
    b->at -= n;
    memcpy(b->data + b->at, p, n);
}

static void put_varint(struct back *b, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;

    do {
        bytes[n] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
        n++;
    } while (v > 0);
    put(b, bytes, n);
}

static void put_tag(struct back *b, unsigned field, unsigned wire)
{
    put_varint(b, field << 3 | wire);
}

/* The head of what was written since `end`. */
static void put_head(struct back *b, unsigned field, size_t end)
{
    put_varint(b, end - b->at);
    put_tag(b, field, WIRE_BYTES);
}

static void put_text(struct back *b, unsigned field, const char *p, size_t n)
{
    size_t end = b->at;

    put(b, p, n);
    put_head(b, field, end);
}

static void put_struct(struct back *b, const json_t *object, bool top);

static void put_double(struct back *b, double v)
{
    uint64_t bits;
    uint8_t bytes[8];

    memcpy(&bits, &v, sizeof(bits));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(bits >> (8 * i));
    }
    put(b, bytes, sizeof(bytes));
    put_tag(b, 2, WIRE_FIXED64);
}

/* What a Value says, without its head. Depth is bounded by jwt_json_parse. */
static void put_value(struct back *b, const json_t *v)
{
    size_t end = b->at;

    switch (json_typeof(v)) {
    case JSON_OBJECT:
        put_struct(b, v, false);
        put_head(b, 5, end);
        break;
    case JSON_ARRAY:
        for (size_t i = json_array_size(v); i > 0; i--) {
            size_t one = b->at;

            put_value(b, json_array_get(v, i - 1));
            put_head(b, 1, one);
        }
        put_head(b, 6, end);
        break;
    case JSON_STRING:
        put_text(b, 3, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        put_double(b, json_number_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        put_varint(b, json_is_true(v));
        put_tag(b, 4, WIRE_VARINT);
        break;
    case JSON_NULL:
        put_varint(b, 0);
        put_tag(b, 1, WIRE_VARINT);
        break;
    }
}

/* A single audience is told as a list of one. */
static void put_list_of_one(struct back *b, const json_t *v)
{
    size_t end = b->at;

    put_value(b, v);
    put_head(b, 1, end);
    put_head(b, 6, end);
}

static void put_struct(struct back *b, const json_t *object, bool top)
{
    /* the parser's iterators take no const, and change nothing */
    json_t *o = (json_t *)(uintptr_t)object;

    for (void *it = json_object_iter(o); it != NULL; it = json_object_iter_next(o, it)) {
        const char *key = json_object_iter_key(it);
        const json_t *v = json_object_iter_value(it);
        size_t entry = b->at;

        if (top && json_is_string(v) && strcmp(key, "aud") == 0) {
            put_list_of_one(b, v);
        } else {
            put_value(b, v);
        }
        put_head(b, 2, entry);
        put_text(b, 1, key, strlen(key));
        put_head(b, 1, entry);
    }
}

int jwt_claims_pack(const struct jwt_token *t, uint8_t **ret, size_t *ret_len, struct err *err)
{
    size_t size = (size_t)JWT_TOKEN_MAX * GROWTH + SPARE;
    struct back b = {.data = malloc(size), .at = size};

    if (b.data == NULL) {
        return err_set(err, ERR_LIMIT, "no memory for claims");
    }
    put_struct(&b, t->claims, true);
    if (b.full) {
        free(b.data);
        return err_set(err, ERR_LIMIT, "the claims are too large");
    }
    *ret_len = size - b.at;
    memmove(b.data, b.data + b.at, *ret_len);
    *ret = b.data;
    return 0;
}
