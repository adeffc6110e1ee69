# shellcheck shell=bash
# A certificate authority of this stack, a server certificate for localhost and a client certificate.

make_certificates() {
  local tls=$DATA/tls
  [[ ! -d $tls ]] || return 0
  rm -rf "$tls.part"
  mkdir -p "$tls.part"
  (
    cd "$tls.part"
    umask 077
    new_key ca
    openssl req -x509 -new -key ca.key -days 3650 -subj '/CN=CDC Platform local CA' \
      -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' -out ca.crt
    sign server localhost serverAuth
    sign client "$SECURE_USER" clientAuth
    cat server.key server.crt ca.crt >server.pem
    chmod 644 ./*.crt
  ) 2>"$DATA/logs/tls.log" || { show_log_end "$DATA/logs/tls.log"; fail 70 "the certificates could not be made"; }
  mv -T "$tls.part" "$tls"
}

new_key() {
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"
}

sign() {
  local name=$1 subject=$2 usage=$3
  new_key "$name"
  openssl req -new -key "$name.key" -subj "/CN=$subject" -out "$name.csr"
  openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out "$name.crt" \
    -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nextendedKeyUsage=%s\n' "$usage")
  rm "$name.csr"
}
