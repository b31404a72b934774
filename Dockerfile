# docker build -t segmentation . && docker run --gpus all --ipc=host -v "$PWD/output:/project/output" segmentation
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /project
COPY requirements.txt requirements-optional.txt ./
ARG REQUIREMENTS=requirements.txt
RUN pip install --no-cache-dir -r $REQUIREMENTS
COPY . .
ENV VENV=none
ENTRYPOINT ["bash"]
CMD ["scripts/quickstart.sh"]
