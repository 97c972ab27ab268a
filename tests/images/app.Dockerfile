# The test application. Its version is in the image, so each version is an image of its own.
FROM rollout-test/python
COPY app.py /app/app.py
ARG ROLLOUT_APP_VERSION=1
ENV VERSION=$ROLLOUT_APP_VERSION
EXPOSE 8000
CMD ["python3", "/app/app.py"]
