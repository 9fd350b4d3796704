package main

import (
	"errors"
	"io"
	"net"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
)

// noop is the least that an external processor can do: it takes headers and
// body, changes nothing, and ends the stream with its last answer, as weir does.
type noop struct {
	extprocv3.UnimplementedExternalProcessorServer
}

// runNoop serves on the unix socket args[0], with weir's options of gRPC.
func runNoop(args []string) error {
	ln, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	const largest = 256 << 20
	srv := grpc.NewServer(
		grpc.MaxRecvMsgSize(largest), grpc.MaxSendMsgSize(largest), grpc.NumStreamWorkers(4),
		grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(16<<20),
	)
	extprocv3.RegisterExternalProcessorServer(srv, noop{})
	return srv.Serve(ln)
}

// Process answers one request.
func (noop) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch part := req.Request.(type) {
		case *extprocv3.ProcessingRequest_RequestHeaders:
			err = stream.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{
				RequestHeaders: &extprocv3.HeadersResponse{},
			}})
			if part.RequestHeaders.EndOfStream {
				return err
			}
		case *extprocv3.ProcessingRequest_RequestBody:
			return stream.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestBody{
				RequestBody: &extprocv3.BodyResponse{},
			}})
		}
		if err != nil {
			return err
		}
	}
}
