# ampd with the bytegpt workload:
#
#     docker build -t ampd .
#     docker run --rm -p 9647:9647 -v ampd-jobs:/jobs --stop-timeout 120 --name bytegpt ampd
#     docker exec bytegpt ampctl status
#
# Another job: mount its file and name it, `... ampd --config /jobs/job.toml`. Another base: any image with
# python3 >= 3.11, its venv module and useradd, `--build-arg BASE=...`. Whence packages come is pip's own
# configuration, which nothing here overrides.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/ampd
COPY constraints.txt ./
# A layer of its own for the one large dependency, which a change of source leaves as it is.
RUN /opt/ampd/bin/pip install --no-cache-dir -c constraints.txt torch
COPY . ./
RUN /opt/ampd/bin/pip install --no-cache-dir -c constraints.txt . ./plugins/ampd-bytegpt

FROM ${BASE}
COPY --from=build /opt/ampd /opt/ampd
COPY plugins/ampd-bytegpt/job.toml /etc/ampd/job.toml
# The sockets' directory is private to the user, as the daemon wants it; jobs are kept in a volume.
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /jobs --shell /usr/sbin/nologin ampd \
    && install --directory --owner ampd --group ampd --mode 0700 /run/ampd \
    && install --directory --owner ampd --group ampd --mode 0750 /jobs
ENV PATH=/opt/ampd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AMPD_RUNTIME_DIR=/run/ampd
USER 10001
WORKDIR /jobs
VOLUME /jobs
EXPOSE 9647
# SIGTERM: the worker saves first; 10 seconds, docker's default, are too few for a large model.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9647/healthz', timeout=4)"]
# The job file listens on loopback, which nothing outside the container could reach.
ENTRYPOINT ["ampd", "start", "--set", "http.listen=0.0.0.0:9647"]
CMD ["--config", "/etc/ampd/job.toml"]
