// Calls of every kind from C++ to grpc_calls.py by way of the address that is given: build it with
// libgrpc++-dev.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <memory>
#include <string>
#include <vector>

namespace
{

void must(bool ok, const std::string &what)
{
    if (!ok) {
        std::printf("FAILED %s\n", what.c_str());
        std::exit(1);
    }
}

// One call, a step at a time; it ends with `end`.
class Call
{
  public:
    Call(grpc::GenericStub &stub, const std::string &method,
         std::chrono::milliseconds deadline = std::chrono::minutes(1))
    {
        context.set_deadline(std::chrono::system_clock::now() + deadline);
        stream = stub.PrepareCall(&context, method, &queue);
        stream->StartCall(this);
        started = step();
    }
    ~Call()
    {
        void *tag = nullptr;
        bool ok = false;
        queue.Shutdown();
        while (queue.Next(&tag, &ok)) {
        }
    }

    bool write(const std::string &text)
    {
        grpc::Slice slice(text);
        stream->Write(grpc::ByteBuffer(&slice, 1), this);
        return step();
    }
    bool last()
    {
        stream->WritesDone(this);
        return step();
    }
    bool read(std::string &ret)
    {
        grpc::ByteBuffer bytes;
        std::vector<grpc::Slice> slices;
        stream->Read(&bytes, this);
        if (!step() || !bytes.Dump(&slices).ok()) {
            return false;
        }
        ret.clear();
        for (const grpc::Slice &s : slices) {
            ret.append(reinterpret_cast<const char *>(s.begin()), s.size());
        }
        return true;
    }
    grpc::Status end()
    {
        grpc::Status status;
        stream->Finish(&status, this);
        step();
        return status;
    }

    grpc::ClientContext context;

  private:
    bool step()
    {
        void *tag = nullptr;
        bool ok = false;
        return queue.Next(&tag, &ok) && ok;
    }

    grpc::CompletionQueue queue;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
    bool started = false;
};

grpc::Status unary(grpc::GenericStub &stub, const std::string &method, const std::string &text,
                   std::string &ret)
{
    Call call(stub, method);
    if (call.write(text) && call.last()) {
        call.read(ret);
    }
    return call.end();
}

void every_kind(grpc::GenericStub &stub)
{
    std::string got;
    Call one(stub, "/t.T/Unary");
    must(one.write("hi") && one.last() && one.read(got) && got == "hi", "a unary call");
    must(one.end().ok(), "its end");
    must(one.context.GetServerTrailingMetadata().count("x-sum") == 1, "its trailers");

    Call down(stub, "/t.T/ServerStream");
    must(down.write(std::string(1000, 'x')) && down.last(), "a server's stream");
    int n = 0;
    for (; down.read(got); n++) {
        must(got.size() == 1000, "a message of it");
    }
    must(down.end().ok() && n == 100, "100 messages");

    Call up(stub, "/t.T/ClientStream");
    for (int i = 0; i < 50; i++) {
        must(up.write(std::string(100000, 'a')), "a client's stream");
    }
    must(up.last() && up.read(got) && got.size() == 5000000 && up.end().ok(), "its sum");

    Call both(stub, "/t.T/Both");
    for (int i = 0; i < 500; i++) {
        must(both.write(std::to_string(i)) && both.read(got) && got == std::to_string(i),
             "streams both ways");
    }
    must(both.last() && !both.read(got) && both.end().ok(), "their end");

    const std::string large(16 << 20, 'z');
    must(unary(stub, "/t.T/Unary", large, got).ok() && got == large, "a large message");
}

void ends(grpc::GenericStub &stub)
{
    std::string got;
    Call late(stub, "/t.T/Slow", std::chrono::milliseconds(300));
    must(late.write("") && late.last(), "a slow call");
    must(!late.read(got) && late.end().error_code() == grpc::StatusCode::DEADLINE_EXCEEDED,
         "a deadline");

    Call taken_back(stub, "/t.T/Slow");
    must(taken_back.write("") && taken_back.last(), "another slow call");
    taken_back.context.TryCancel();
    must(!taken_back.read(got) && taken_back.end().error_code() == grpc::StatusCode::CANCELLED,
         "cancellation");

    must(unary(stub, "/t.T/None", "", got).error_code() == grpc::StatusCode::UNIMPLEMENTED,
         "a method that is not there");
    const grpc::Status denied = unary(stub, "/u.U/Unary", "", got);
    must(denied.error_code() == grpc::StatusCode::PERMISSION_DENIED &&
             denied.error_message().find("policy_denied") != std::string::npos,
         "a denial");
}

void many_at_once(grpc::GenericStub &stub)
{
    std::vector<std::unique_ptr<Call>> calls;
    std::string got;
    for (int i = 0; i < 500; i++) {
        calls.push_back(std::make_unique<Call>(stub, "/t.T/Unary"));
        must(calls.back()->write("q") && calls.back()->last(), "one of many");
        if (calls.size() == 50) {
            for (const auto &c : calls) {
                must(c->read(got) && got == "q" && c->end().ok(), "the answer of one of many");
            }
            calls.clear();
        }
    }
}

} // namespace

int main(int, char **argv)
{
    grpc::ChannelArguments args;
    args.SetMaxReceiveMessageSize(-1);
    args.SetMaxSendMessageSize(-1);
    grpc::GenericStub stub(
        grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), args));
    every_kind(stub);
    ends(stub);
    many_at_once(stub);
    std::puts("all calls are as they have to be");
    return 0;
}
