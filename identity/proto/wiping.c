/* Memory for messages that hold keys or tokens: it is wiped when it goes. */
#include <postern/proto.h>

#include <malloc.h>
#include <postern/mem.h>
#include <stdlib.h>

static void *wiping_alloc(void *data, size_t size)
{
    (void)data;
    return malloc(size);
}

static void wiping_free(void *data, void *p)
{
    (void)data;
    if (p != NULL) {
        mem_wipe(p, malloc_usable_size(p));
        free(p);
    }
}

ProtobufCAllocator *proto_wiping(void)
{
    static ProtobufCAllocator a = {.alloc = wiping_alloc, .free = wiping_free};
    return &a;
}
