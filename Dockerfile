# The static program, from source, and nothing else: what an image needs to have sexton is
#   COPY --from=sexton /sexton /sexton
#   ENTRYPOINT ["/sexton", "--"]
FROM debian:bookworm AS build
WORKDIR /sexton
# What the build needs comes first: a change of the sources installs nothing again.
COPY dist dist
RUN dist/build --install
COPY . .
RUN dist/build

FROM scratch
COPY --from=build /sexton/target/dist/x86_64/sexton /sexton
ENTRYPOINT ["/sexton"]
