#compdef mongoose
# Completions of mongoose for zsh, made by `mongoose --completions zsh`.
_arguments \
  '--config[Options from a file\: lines NAME VALUE, and comments with #]:file:_files' \
  '--user[Asks for a password, and lets nobody in without both]:value: ' \
  '--tls[https, with the certificate in FILE, or a new one\: self-signed]:file:_files' \
  '--upload[Who is let in may also upload; without --user, on this machine alone]' \
  '--anybody[Uploads by anybody, from anywhere]' \
  '--cgi[Runs the CGI programs among the files]' \
  '--grace[How long running transfers may go on at the end \[10\]]:value: ' \
  '(-q --quiet)'{-q,--quiet}'[Prints nothing but errors]' \
  '-A[Adds or changes a user in a password file]:file:_files' \
  '--completions[Prints the completions for bash, zsh or fish]:value:(bash zsh fish)' \
  '(-h --help)'{-h,--help}'[Prints this list]' \
  '(-V --version)'{-V,--version}'[Prints the version]' \
  '--access_control_list[Who may connect\: subnets with + or -, the last match decides, as -0.0.0.0/0,+192.168/16]:value: ' \
  '--access_log_file[A file to which a line is appended for each request (Combined Log Format)]:file:_files' \
  '--auth_domain[The realm of passwords, and the name of the server for CGI programs]:value: ' \
  '--cgi_environment[Variables for CGI programs, as NAME=VALUE,NAME=VALUE]:value: ' \
  '--cgi_interpreter[The program that runs every CGI program, as php-cgi; else each is executed itself]:file:_files' \
  '--cgi_pattern[Which files are CGI programs; none\: no file is run]:value: ' \
  '--cgi_timeout_ms[Milliseconds after which a CGI program that does nothing is ended]:value: ' \
  '--dav_auth_file[The password file for who may write by WebDAV; without it nobody may]:file:_files' \
  '--dav_depth_infinity[yes\: PROPFIND may ask for all that is below a directory]:value:(yes no)' \
  '--default_charset[The charset of types of text that tell none, as utf-8]:value: ' \
  '--deferred_answers[Which handlers may answer later\: get or all]:value: ' \
  '--document_root[The directory that is served]:directory:_files -/' \
  '--enable_basic_auth[Whether Basic authentication is taken beside Digest\: no, tls or always]:value:(no tls always)' \
  '--enable_directory_listing[yes\: a directory without index file is listed]:value:(yes no)' \
  '--enable_precompressed[yes\: a.js.br or a.js.gz is sent for a.js to clients that take it]:value:(yes no)' \
  '--enable_ssi_exec[yes\: pages may run commands, and include files from anywhere]:value:(yes no)' \
  '--enable_uploads[yes\: who may write does so from the pages that list directories]:value:(yes no)' \
  '--error_log_file[A file to which a line is appended for each failure]:file:_files' \
  '--extra_headers[Header fields for every answer\: lines of the form Name\: value]:value: ' \
  '--extra_mime_types[Media types by extension, as .foo=text/plain,.bar=image/png]:value: ' \
  '--file_cache_bytes[Memory for the content of small files]:value: ' \
  '--follow_symlinks[Which symbolic links are followed\: yes, no, or same_owner]:value:(yes no same_owner)' \
  '--global_auth_file[One password file for everything, in place of .htpasswd in each directory]:file:_files' \
  '--hide_files_patterns[Files that nobody gets or sees, by their names or paths, as **.bak$|**/private/]:value: ' \
  '--idle_timeout_ms[Milliseconds without traffic after which a connection is closed; 0\: never]:value: ' \
  '--index_files[What a directory shows in place of a listing, the first that exists]:value: ' \
  '--iterate_content[What a walk over websockets sees as content\: none, or the last message]:value: ' \
  '--iterate_over[What a walk visits\: websockets, or all connections]:value: ' \
  '--iterate_timeout_ms[Milliseconds for which a walk of another thread waits; 0\: for ever]:value: ' \
  '--listening_port[Where the server listens, as 8080, 127.0.0.1\:8080, \[\:\:\]\:80r,\[\:\:\]\:443s, unix\:run.sock\:0660]:value: ' \
  '--max_buffered_bytes[The most memory for all request bodies and send queues together]:value: ' \
  '--max_cgi_processes[The most CGI programs that run at a time; 0\: no limit]:value: ' \
  '--max_connections[The most connections at a time; 0\: as many as the system allows]:value: ' \
  '--max_request_body_bytes[The longest request body that is kept in memory]:value: ' \
  '--max_request_header_bytes[The longest head of a request]:value: ' \
  '--max_send_queue_bytes[The most bytes that wait for one client]:value: ' \
  '--max_upload_bytes[The longest upload to a file or a CGI program; 0\: as long as the disk has room]:value: ' \
  '--max_websocket_message_bytes[The longest message of a websocket]:value: ' \
  '--request_timeout_ms[Milliseconds in which a request must be complete; 0\: any time]:value: ' \
  '--run_as_user[The user that the process becomes once it listens]:user:_users' \
  '--ssl_ca_certificate[A PEM file with the authorities of client certificates, which are then asked for]:file:_files' \
  '--ssl_certificate[A PEM file with key and certificates\: the ports then speak TLS]:file:_files' \
  '--ssl_certificates[Certificates by the name that a client asks for, as host=file,*.example.org=file]:value: ' \
  '--ssl_protocols[The versions of TLS that are spoken]:value: ' \
  '--ssl_verify_client[Whether clients must have a certificate\: require, or optional]:value: ' \
  '--ssi_pattern[Which files are pages with includes, as **.shtml$]:value: ' \
  '--trusted_proxies[Subnets, or unix, of proxies that are believed for whom they speak]:value: ' \
  '--uploads_by_anybody[yes\: anybody may write from those pages, where enable_uploads is yes]:value:(yes no)' \
  '--url_rewrites[Places in the file system by the path of a request, as /docs=/usr/share/doc]:value: ' \
  '--websocket_deflate[yes\: messages of websockets are compressed where the client can]:value:(yes no)' \
  '--websocket_delivery[What a websocket handler is shown\: messages, or frames]:value: ' \
  '--websocket_ping_interval_ms[Milliseconds after which an idle websocket is pinged; 0\: never]:value: ' \
  '--websocket_protocols[The subprotocols of websockets, the first that the client knows is taken]:value: ' \
  '*:directory:_files -/'
