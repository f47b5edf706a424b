/* The descriptors that protoc made of reflect/, as one FileDescriptorSet. */
#include <postern/proto.h>

extern const unsigned char proto_reflection_bytes[];
extern const size_t proto_reflection_bytes_size;

struct str proto_reflection_set(void)
{
    return (struct str){(const char *)proto_reflection_bytes, proto_reflection_bytes_size};
}
