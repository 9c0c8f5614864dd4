# Completions of mongoose for bash, made by `mongoose --completions bash`.
_mongoose() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} IFS=$' \t\n'
  COMPREPLY=()
  case $before in
    --completions)
      COMPREPLY=($(compgen -W 'bash zsh fish' -- "$word")) ;;
    --dav_depth_infinity|--enable_directory_listing|--enable_precompressed|--enable_ssi_exec|--enable_uploads|--uploads_by_anybody|--websocket_deflate)
      COMPREPLY=($(compgen -W 'yes no' -- "$word")) ;;
    --enable_basic_auth)
      COMPREPLY=($(compgen -W 'no tls always' -- "$word")) ;;
    --follow_symlinks)
      COMPREPLY=($(compgen -W 'yes no same_owner' -- "$word")) ;;
    --config|--tls|-A|--access_log_file|--cgi_interpreter|--dav_auth_file|--document_root|--error_log_file|--global_auth_file|--ssl_ca_certificate|--ssl_certificate)
      compopt -o filenames; COMPREPLY=($(compgen -f -- "$word")) ;;
    --run_as_user)
      COMPREPLY=($(compgen -u -- "$word")) ;;
    --user|--grace|--access_control_list|--auth_domain|--cgi_environment|--cgi_pattern|--cgi_timeout_ms|--default_charset|--deferred_answers|--extra_headers|--extra_mime_types|--file_cache_bytes|--hide_files_patterns|--idle_timeout_ms|--index_files|--iterate_content|--iterate_over|--iterate_timeout_ms|--listening_port|--max_buffered_bytes|--max_cgi_processes|--max_connections|--max_request_body_bytes|--max_request_header_bytes|--max_send_queue_bytes|--max_upload_bytes|--max_websocket_message_bytes|--request_timeout_ms|--ssl_certificates|--ssl_protocols|--ssl_verify_client|--ssi_pattern|--trusted_proxies|--url_rewrites|--websocket_delivery|--websocket_ping_interval_ms|--websocket_protocols)
      ;;
    *)
      if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W '--config --user --tls --upload --anybody --cgi --grace --quiet -A --completions --help --version --access_control_list --access_log_file --auth_domain --cgi_environment --cgi_interpreter --cgi_pattern --cgi_timeout_ms --dav_auth_file --dav_depth_infinity --default_charset --deferred_answers --document_root --enable_basic_auth --enable_directory_listing --enable_precompressed --enable_ssi_exec --enable_uploads --error_log_file --extra_headers --extra_mime_types --file_cache_bytes --follow_symlinks --global_auth_file --hide_files_patterns --idle_timeout_ms --index_files --iterate_content --iterate_over --iterate_timeout_ms --listening_port --max_buffered_bytes --max_cgi_processes --max_connections --max_request_body_bytes --max_request_header_bytes --max_send_queue_bytes --max_upload_bytes --max_websocket_message_bytes --request_timeout_ms --run_as_user --ssl_ca_certificate --ssl_certificate --ssl_certificates --ssl_protocols --ssl_verify_client --ssi_pattern --trusted_proxies --uploads_by_anybody --url_rewrites --websocket_deflate --websocket_delivery --websocket_ping_interval_ms --websocket_protocols' -- "$word"))
      else
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
      fi ;;
  esac
}
complete -F _mongoose mongoose
