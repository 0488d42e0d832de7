/// Embed a bundle: `asap::load(folder)->generate({"cat.png"}, "What is on the mat?").text`.
#pragma once

#include <asap/conversation.hpp>
#include <asap/error.hpp>
#include <asap/image.hpp>
#include <asap/model.hpp>
#include <asap/request.hpp>
#include <asap/version.hpp>
