# The command `penstock` in a container: docker build -t penstock . && docker run --rm -it penstock demo
FROM python:3.13-slim

WORKDIR /app

# What changes seldom comes first, so that a change in the source does not install it all again.
COPY requirements/demo.txt requirements/
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/demo.txt

COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

RUN useradd --create-home penstock
USER penstock

ENTRYPOINT ["penstock"]
CMD ["--help"]
