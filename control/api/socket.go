package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproxy/weir/control"
)

// SocketServer serves the API on a unix socket. Whoever may open the socket may
// change everything: the file's mode is the lock, the kernel says who it is.
func (s *Server) SocketServer() *http.Server {
	srv := s.bounded(s.mux)
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true) // for gRPC
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		uid, err := peer(c)
		if err != nil {
			s.o.Log.Error("admin API: the caller on the socket is not known", "err", err)
			return ctx // not identified: refused
		}
		return withActor(ctx, control.Actor{Name: fmt.Sprintf("socket:uid=%d", uid), Roles: everyone})
	}
	return srv
}

// bounded is a server that waits for nobody for ever.
func (s *Server) bounded(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), // whoever knocks can make it write
	}
}

// peer is the user at the other end of a unix socket.
func peer(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is no unix socket", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) {
		cred, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if asked != nil {
		return 0, asked
	}
	return cred.Uid, nil
}
