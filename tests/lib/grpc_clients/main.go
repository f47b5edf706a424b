// Calls of every kind from Go to grpc_calls.py by way of the address that is given: build it with google.golang.org/grpc.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return *(v.(*[]byte)), nil }
func (raw) Unmarshal(b []byte, v any) error { *(v.(*[]byte)) = append([]byte(nil), b...); return nil }
func (raw) Name() string                    { return "raw" }

func must(ok bool, what ...any) {
	if !ok {
		fmt.Println(append([]any{"FAILED"}, what...)...)
		os.Exit(1)
	}
}

func main() {
	c, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(1<<28), grpc.MaxCallSendMsgSize(1<<28)))
	must(err == nil, err)
	ctx := context.Background()
	call := func(ctx context.Context, m string, in []byte) ([]byte, error) {
		var out []byte
		err := c.Invoke(ctx, m, &in, &out)
		return out, err
	}
	out, err := call(ctx, "/t.T/Unary", []byte("hi"))
	must(err == nil && string(out) == "hi", err)
	large := bytes.Repeat([]byte("z"), 16<<20)
	out, err = call(ctx, "/t.T/Unary", large)
	must(err == nil && bytes.Equal(out, large), "large", err)
	d := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := c.NewStream(ctx, d, "/t.T/Both")
	must(err == nil, err)
	go func() {
		for i := 0; i < 500; i++ {
			b := []byte(fmt.Sprint(i))
			s.SendMsg(&b)
		}
		s.CloseSend()
	}()
	n := 0
	for ; ; n++ {
		var b []byte
		err := s.RecvMsg(&b)
		if err == io.EOF {
			break
		}
		must(err == nil && string(b) == fmt.Sprint(n), n, err)
	}
	must(n == 500, n)
	s, _ = c.NewStream(ctx, d, "/t.T/ClientStream")
	for i := 0; i < 50; i++ {
		b := bytes.Repeat([]byte("a"), 100000)
		must(s.SendMsg(&b) == nil)
	}
	s.CloseSend()
	var sum []byte
	must(s.RecvMsg(&sum) == nil && len(sum) == 5000000)
	s, _ = c.NewStream(ctx, d, "/t.T/ServerStream")
	b := []byte("x")
	s.SendMsg(&b)
	s.CloseSend()
	for n = 0; s.RecvMsg(&b) == nil; n++ {
	}
	must(n == 100, n)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err = call(short, "/t.T/Slow", nil)
	must(status.Code(err) == codes.DeadlineExceeded, err)
	cancel()
	cc, cancel := context.WithCancel(ctx)
	time.AfterFunc(200*time.Millisecond, cancel)
	_, err = call(cc, "/t.T/Slow", nil)
	must(status.Code(err) == codes.Canceled, err)
	_, err = call(ctx, "/t.T/None", nil)
	must(status.Code(err) == codes.Unimplemented, err)
	_, err = call(ctx, "/u.U/Unary", nil)
	must(status.Code(err) == codes.PermissionDenied, err)
	fmt.Println("denied:", err)
	done := make(chan error, 500)
	for i := 0; i < 500; i++ {
		go func() {
			o, err := call(ctx, "/t.T/Unary", []byte("q"))
			if string(o) != "q" && err == nil {
				err = io.ErrUnexpectedEOF
			}
			done <- err
		}()
	}
	for i := 0; i < 500; i++ {
		err := <-done
		must(err == nil, err)
	}
	fmt.Println("all calls are as they have to be")
}
