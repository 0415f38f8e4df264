# The agent and its command, static, on nothing. `make images` builds the
# binaries into the context; no network is needed.
FROM scratch
COPY poolagent poolctl /
ENV PATH=/
ENTRYPOINT ["/poolagent"]
