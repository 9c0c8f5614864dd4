// The library from C#, by P/Invoke: a page, and a websocket that echoes.
//
//     mcs Server.cs && LD_LIBRARY_PATH=../../../build mono Server.exe [PORT]

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

[StructLayout(LayoutKind.Sequential)]
struct Header {
    public IntPtr Name, Value;
}

// struct mg_connection. Its texts are pointers into memory of the library, good until the handler returns.
[StructLayout(LayoutKind.Sequential)]
struct Connection {
    public IntPtr RequestMethod, Uri, HttpVersion, QueryString;
    [MarshalAs(UnmanagedType.ByValArray, SizeConst = 48)] public byte[] RemoteIp;
    public int RemotePort, NumHeaders;
    [MarshalAs(UnmanagedType.ByValArray, SizeConst = 30)] public Header[] Headers;
    public IntPtr Content;
    public int ContentLength, IsWebsocket, StatusCode;
    public byte WebsocketBits;
    public IntPtr ServerParam, ConnectionParam;
}

static class Library {
    const string Name = "libmongoose.so.5";

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate int Handler(IntPtr conn);

    [DllImport(Name)] public static extern IntPtr mg_create_server(IntPtr param);
    [DllImport(Name)] public static extern void mg_destroy_server(ref IntPtr server);
    [DllImport(Name)] public static extern IntPtr mg_set_option(IntPtr server, byte[] name, byte[] value);
    [DllImport(Name)] public static extern IntPtr mg_get_option(IntPtr server, byte[] name);
    [DllImport(Name)] public static extern uint mg_poll_server(IntPtr server, int milliseconds);
    [DllImport(Name)] public static extern void mg_add_uri_handler(IntPtr server, byte[] uri, Handler handler);
    [DllImport(Name)] public static extern void mg_send_status(IntPtr conn, int status);
    [DllImport(Name)] public static extern void mg_send_header(IntPtr conn, byte[] name, byte[] value);
    [DllImport(Name)] public static extern void mg_send_data(IntPtr conn, byte[] data, int length);
    [DllImport(Name)] public static extern int mg_websocket_write(IntPtr conn, int opcode, IntPtr data, UIntPtr length);
}

class Server : IDisposable {
    IntPtr server = Library.mg_create_server(IntPtr.Zero);
    // The library keeps pointers to these: the garbage collector must not take them.
    readonly List<Library.Handler> kept = new List<Library.Handler>();

    static byte[] Text(string text) { return Encoding.UTF8.GetBytes(text + "\0"); }

    public void Set(string name, string value) {
        IntPtr error = Library.mg_set_option(server, Text(name), Text(value));
        if (error != IntPtr.Zero) throw new ArgumentException(name + ": " + Marshal.PtrToStringAnsi(error));
    }

    public string Get(string name) {
        return Marshal.PtrToStringAnsi(Library.mg_get_option(server, Text(name)));
    }

    public void Handle(string prefix, Func<IntPtr, int> handler) {
        // An exception must not cross the C code: what it would pass there is not known to the runtime.
        Library.Handler guarded = conn => {
            try {
                return handler(conn);
            } catch (Exception exception) {
                Console.Error.WriteLine(exception);
                if (Fields(conn).IsWebsocket == 0) Answer(conn, 500, "text/plain", "Internal error\n");
                return 1;
            }
        };
        kept.Add(guarded);
        Library.mg_add_uri_handler(server, Text(prefix), guarded);
    }

    public static Connection Fields(IntPtr conn) { return Marshal.PtrToStructure<Connection>(conn); }

    public static void Answer(IntPtr conn, int status, string kind, string content) {
        byte[] data = Encoding.UTF8.GetBytes(content);
        Library.mg_send_status(conn, status);
        Library.mg_send_header(conn, Text("Content-Type"), Text(kind));
        Library.mg_send_data(conn, data, data.Length);
    }

    public void Poll(int milliseconds) { Library.mg_poll_server(server, milliseconds); }

    public void Dispose() { Library.mg_destroy_server(ref server); }
}

static class Program {
    const string Page = @"<!doctype html>
<meta charset=""utf-8""><meta name=""viewport"" content=""width=device-width"">
<title>C#</title>
<body style=""font:1.1rem/1.5 system-ui;margin:2rem;color-scheme:light dark"">
<h1>Served by C#</h1>
<input id=""text"" placeholder=""Say something""><pre id=""lines""></pre>
<script>
const socket = new WebSocket(location.href.replace('http', 'ws') + 'echo');
socket.onmessage = (event) => { lines.textContent = event.data + '\n' + lines.textContent; };
text.onchange = () => { socket.send(text.value); text.value = ''; };
</script>
";

    static volatile bool over;

    // signal() of C: Mono has its own handlers for these, which would end the process at once.
    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    delegate void OnSignal(int number);
    [DllImport("libc")] static extern IntPtr signal(int number, OnSignal handler);
    static readonly OnSignal end = number => over = true;

    static int Echo(IntPtr conn) {
        Connection fields = Server.Fields(conn);
        if (fields.IsWebsocket == 0) {
            Server.Answer(conn, 426, "text/plain", "A websocket is spoken here.\n");
            return 1;
        }
        int opcode = fields.WebsocketBits & 15;
        if (opcode == 1 || opcode == 2) {
            Library.mg_websocket_write(conn, opcode, fields.Content, (UIntPtr) fields.ContentLength);
        }
        return opcode == 8 ? 1 : 0;
    }

    static int Main(string[] arguments) {
        using (var server = new Server()) {
            try {
                server.Set("listening_port", "127.0.0.1:" + (arguments.Length > 0 ? arguments[0] : "8080"));
            } catch (ArgumentException error) {
                Console.Error.WriteLine(error.Message);
                return 1;
            }
            server.Handle("/", conn => {
                Server.Answer(conn, 200, "text/html; charset=utf-8", Page);
                return 1;
            });
            server.Handle("/fails", conn => { throw new InvalidOperationException("an exception in a handler"); });
            server.Handle("/echo", Echo);
            signal(2, end);
            signal(15, end);
            Console.WriteLine("Listening on http://" + server.Get("listening_port") + "/");
            while (!over) server.Poll(200);
        }
        return 0;
    }
}
