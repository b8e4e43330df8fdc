//! What is deployed: the image, alone, in a pod and in Compose, and the manifests.

mod image;
mod manifests;
