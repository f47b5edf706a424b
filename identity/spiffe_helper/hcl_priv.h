/* What the files of this room share: the tree of an HCL file. */
#ifndef POSTERN_HCL_PRIV_H
#define POSTERN_HCL_PRIV_H

#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hcl_kind { HCL_STRING, HCL_NUMBER, HCL_BOOL, HCL_LIST, HCL_OBJECT };
enum { HCL_DEPTH_MAX = 8, HCL_NODES_MAX = 4096 };

struct hcl_node {
    enum hcl_kind kind;
    unsigned line, column; /* of the key, else of the value */
    char *key;             /* owned; NULL in a list */
    char *text;            /* owned; string: its bytes, without NUL; number: as written */
    bool truth;
    struct hcl_node *child, *last, *next; /* owned */
};

/* The file's object; or NULL, and err says why and where. */
struct hcl_node *hcl_parse(const char *name, const char *text, size_t len, struct err *err);
struct hcl_node *hcl_free(struct hcl_node *n);

#endif
