// The library from Go, by cgo: a page, and a websocket that echoes.
//
//	go build -o server . && ./server [PORT]
//
// beside a library that `make` has built; where one is installed, the two lines `#cgo` are `#cgo pkg-config: mongoose`.
package main

/*
#cgo CFLAGS: -I${SRCDIR}/../../../include
#cgo LDFLAGS: -L${SRCDIR}/../../../build -lmongoose -Wl,-rpath,${SRCDIR}/../../../build
#include <stdlib.h>
#include <mongoose.h>

extern int goHandler(struct mg_connection *conn);
*/
import "C"

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Handlers by the paths that they are called for. C cannot keep pointers to functions of Go: one exported function
// gets all requests, and looks here. It is written before the loop begins, and only read then.
var handlers = map[string]func(*C.struct_mg_connection) int{}

//export goHandler
func goHandler(conn *C.struct_mg_connection) (result C.int) {
	// A panic that reaches C ends the process.
	defer func() {
		if fault := recover(); fault != nil {
			fmt.Fprintln(os.Stderr, "a handler has failed:", fault)
			if conn.is_websocket == 0 {
				answer(conn, 500, "text/plain", "Internal error\n")
			}
			result = 1
		}
	}()
	path, best := C.GoString(conn.uri), ""
	for prefix := range handlers {
		if strings.HasPrefix(path, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return C.int(handlers[best](conn))
}

func answer(conn *C.struct_mg_connection, status int, kind, content string) {
	name, value := C.CString("Content-Type"), C.CString(kind)
	data := C.CString(content)
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(value))
	defer C.free(unsafe.Pointer(data))
	C.mg_send_status(conn, C.int(status))
	C.mg_send_header(conn, name, value)
	C.mg_send_data(conn, unsafe.Pointer(data), C.int(len(content)))
}

const page = `<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Go</title>
<body style="font:1.1rem/1.5 system-ui;margin:2rem;color-scheme:light dark">
<h1>Served by Go</h1>
<input id="text" placeholder="Say something"><pre id="lines"></pre>
<script>
const socket = new WebSocket(location.href.replace('http', 'ws') + 'echo');
socket.onmessage = (event) => { lines.textContent = event.data + '\n' + lines.textContent; };
text.onchange = () => { socket.send(text.value); text.value = ''; };
</script>
`

func echo(conn *C.struct_mg_connection) int {
	if conn.is_websocket == 0 {
		answer(conn, 426, "text/plain", "A websocket is spoken here.\n")
		return 1
	}
	opcode := conn.wsbits & 15
	if opcode == 1 || opcode == 2 {
		C.mg_websocket_write(conn, C.int(opcode), conn.content, C.size_t(conn.content_len))
	}
	if opcode == 8 {
		return 1
	}
	return 0
}

func set(server *C.struct_mg_server, name, value string) {
	cName, cValue := C.CString(name), C.CString(value)
	defer C.free(unsafe.Pointer(cName))
	defer C.free(unsafe.Pointer(cValue))
	if sentence := C.mg_set_option(server, cName, cValue); sentence != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, C.GoString(sentence))
		os.Exit(1)
	}
}

func handle(server *C.struct_mg_server, prefix string, handler func(*C.struct_mg_connection) int) {
	handlers[prefix] = handler
	uri := C.CString(prefix)
	defer C.free(unsafe.Pointer(uri))
	C.mg_add_uri_handler(server, uri, C.mg_handler_t(C.goHandler))
}

func main() {
	// One thread of the system polls; a goroutine would wander between several.
	runtime.LockOSThread()
	port := "8080"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	server := C.mg_create_server(nil)
	if server == nil {
		fmt.Fprintln(os.Stderr, "no memory for a server")
		os.Exit(1)
	}
	set(server, "listening_port", "127.0.0.1:"+port)
	handle(server, "/", func(conn *C.struct_mg_connection) int {
		answer(conn, 200, "text/html; charset=utf-8", page)
		return 1
	})
	handle(server, "/fails", func(*C.struct_mg_connection) int { panic("a panic in a handler") })
	handle(server, "/echo", echo)

	var over atomic.Bool
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		over.Store(true)
	}()
	name := C.CString("listening_port")
	address := C.GoString(C.mg_get_option(server, name))
	C.free(unsafe.Pointer(name))
	fmt.Printf("Listening on http://%s/\n", address)
	for !over.Load() {
		C.mg_poll_server(server, 200)
	}
	C.mg_destroy_server(&server)
}
