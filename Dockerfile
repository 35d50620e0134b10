# The images, for people with a container engine (integration/cluster/images writes the same without one; a test compares the two, but no engine has
# built this one yet):
#
#   docker build --target gamut       -t gamut.mesh/gamut:0.1.0 .         control plane
#   docker build --target gamut-proxy -t gamut.mesh/gamut-proxy:0.1.0 .   sidecar
#   docker build --target echo        -t gamut.mesh/echo .                the app of the examples
#
# One static executable each; see .ci/static for how.
FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
RUN profile=image && . .ci/static \
 && cargo build --locked --profile image -p gamut --bins \
 && for name in gamut gamut-proxy gamut-echo; do \
      strip --strip-all -o "/$name" "target/$CARGO_BUILD_TARGET/image/$name"; \
    done \
 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=echo -keyout /cert.key -out /cert.crt \
 && chmod 444 /cert.key

FROM scratch AS gamut
COPY --from=build /gamut /usr/local/bin/gamut
USER 65532
ENV PATH=/usr/local/bin
ENTRYPOINT ["gamut"]

FROM scratch AS gamut-proxy
COPY --from=build /gamut-proxy /usr/local/bin/gamut
USER 15001
ENV PATH=/usr/local/bin
ENTRYPOINT ["gamut"]

FROM scratch AS echo
COPY --from=build /gamut-echo /usr/local/bin/gamut-echo
COPY --from=build /gamut-echo /usr/local/bin/client
COPY --from=build /gamut-echo /usr/local/bin/server
COPY --from=build /cert.crt /cert.key /
USER 65532
ENV PATH=/usr/local/bin
ENTRYPOINT ["server"]
